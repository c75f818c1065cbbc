"""Write docs/methods/: a page for each method, from the docstrings and recipes in its file.

python scripts/method_pages.py [FOLDER]     (a test holds that the pages are those that this writes)
"""

import sys
from pathlib import Path

from ownlatent.errors import option
from ownlatent.methods import UNASKED, names
from ownlatent.methods._card import Card, card
from ownlatent.reporting.catalogue import shown

ROOT = Path(__file__).resolve().parents[1]
CIRCUMSTANCES = {
    "default": "always",
    "small": "images up to 64 px",
    "processor": "no accelerator",
    "short": "no accelerator, --minutes up to 60",
    "long": "over 300 epochs",
}


def main(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    cards = [card(name) for name in names()]
    (folder / "README.md").write_text(index(cards))
    for about in cards:
        (folder / f"{about.name}.md").write_text(page(about))


def index(cards: list[Card]) -> str:
    lines = [
        "# Methods",
        "",
        "What each needs, and when to pick it: `ownlatent list methods` shows the same. How they compare on the same",
        "data in the same time is in [the README](../../README.md#methods).",
        "",
        "| method | year | batch | memory | negatives | momentum | predictor | pick it |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for about in cards:
        needs = about.needs
        columns = [needs[key].partition(",")[0] for key in ("batch", "memory", "negatives", "momentum", "predictor")]
        pick = about.pick.rstrip(".")
        lines.append(f"| [{about.name}]({about.name}.md) | {about.year or ''} | {' | '.join(columns)} | {pick} |")
    return "\n".join([*lines, ""])


def page(about: Card) -> str:
    needs = "\n".join(f"- {what}: {how}" for what, how in about.needs.items())
    parts = [
        f"# {about.name}",
        f"{about.title} ({about.paper}). Source: [{about.name}.py](../../src/ownlatent/methods/{about.name}.py).",
        f"```sh\nownlatent pretrain DATA --method {about.name}\n```",
        f"**{about.summary}**",
        about.idea,
        f"## Equation\n\n```\n{about.equation}\n```",
        f"## Needs\n\n{needs}",
        f"## Pick it\n\n{_sentence(about.pick)}",
        f"## What goes wrong, and how it shows\n\n{_sentence(about.wrong)}",
        f"## Settings\n\n{_settings(about)}\n\n{about.settings}",
        f"## Recipes\n\n{_recipes(about)}",
    ]
    return "\n\n".join(parts) + "\n"


def _settings(about: Card) -> str:
    lines = ["| option | default |", "|---|---|"]
    lines += [f"| `{option('method.' + name)}` | {shown(value)} |" for name, value in about.defaults.items()]
    return "\n".join(lines)


def _recipes(about: Card) -> str:
    """A column for each recipe, a row for each setting that any of them has."""
    rows = about.recipes
    settings = list(dict.fromkeys(key for values in rows.values() for key in values if key != "about"))
    heads = [CIRCUMSTANCES[name] if name in UNASKED else f"`--recipe {name}`" for name in rows]
    lines = [f"| | {' | '.join(heads)} |", "|---" * (len(rows) + 1) + "|"]
    for key in settings:
        values = [shown(values[key]) if key in values else "" for values in rows.values()]
        lines.append(f"| `{option(key)}` | {' | '.join(values)} |")
    known = [f"- `--recipe {name}`: {values['about']}" for name, values in rows.items() if "about" in values]
    return "\n".join([*lines, "", *known]).rstrip()


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:]


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "docs" / "methods")
