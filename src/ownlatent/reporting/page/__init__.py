"""One HTML file that shows runs: opened from disk, it asks nothing of any network."""

import json
import logging
from collections.abc import Sequence
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from jinja2 import Environment, StrictUndefined

from ownlatent import __version__
from ownlatent.errors import OwnlatentError
from ownlatent.files import replace_file
from ownlatent.reporting.facts import page_facts, script_facts
from ownlatent.reporting.folder import read_folder

log = logging.getLogger("ownlatent")
_SCRIPTS = ("data.js", "curves.js", "cloud.js", "explorer.js", "neighbours.js")


def write_page(folders: Sequence[Path], out: Path, map: str = "auto") -> Path:
    """Write the report of one or more run folders, as `render` makes it; returns `out`. Raises OSError too."""
    replace_file(out, render(folders, map))
    return out


def render(folders: Sequence[Path], map: str = "auto") -> bytes:
    """The report of one or more run folders. map: as `maps.maps_of` takes it.

    The page is a template and data; neither torch nor the encoder is needed, and what a run lacks is said in it.
    Raises OwnlatentError for a folder that holds no run, or files that hold something else than a run writes.
    """
    runs = [read_folder(path, name) for path, name in zip(folders, _names(folders), strict=True)]
    try:
        data = {"runs": [script_facts(run, map) for run in runs]}
        pages = [page_facts(run) for run in runs]
    except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
        places = " or ".join(str(path) for path in folders)
        raise OwnlatentError(
            f"a file in {places} does not hold what a run writes ({error!r}): evaluate it again"
        ) from error
    text = _template().render(
        runs=pages,
        title=" and ".join(run.name for run in runs),
        version=__version__,
        styles=_part("uPlot.min.css") + _part("report.css"),
        libraries=[_part("uPlot.min.js"), _part("three.min.js")] if _drawn(data) else [_part("uPlot.min.js")],
        licences=_part("LICENCES.txt"),
        scripts="\n".join(_part(name) for name in _SCRIPTS),
        data=_script_safe(data),
    )
    # A file name need not be text; what cannot be written as UTF-8 is escaped.
    return text.encode("utf-8", "backslashreplace")


def write_report(folder: Path) -> None:
    """Write report.html into a run folder and say so. What goes wrong there costs nobody a run: it is a warning."""
    try:
        out = write_page([folder], folder / "report.html", "pca")
    except Exception as error:
        log.warning("report     cannot be written: %s", error)
    else:
        log.info("report     %s", out)


def _drawn(data: dict[str, Any]) -> bool:
    return any(run["gallery"] for run in data["runs"])


def _names(folders: Sequence[Path]) -> list[str]:
    """Short names that tell runs apart: the last part of a path, or as much of it as that takes."""
    resolved = [path.resolve() for path in folders]
    for parts in range(1, 10):
        names = ["/".join(path.parts[-parts:]) for path in resolved]
        if len(set(names)) == len(names):
            return names
    return [str(path) for path in resolved]


def _script_safe(data: Any) -> str:
    """JSON that ends no script element, whatever it holds."""
    text = json.dumps(data, separators=(",", ":"), allow_nan=False)
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


@cache
def _part(name: str) -> str:
    return files(__name__).joinpath(name).read_text(encoding="utf-8")


@cache
def _template() -> Any:
    return Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True).from_string(
        _part("page.html")
    )
