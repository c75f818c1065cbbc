"""What a run begins with: a recipe, and what was given beside it."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from ownlatent.augment.recipes import RECIPES
from ownlatent.errors import OwnlatentError, nearest
from ownlatent.recipes import sounds
from ownlatent.train.recipe import SHORT_MINUTES, Recipe, edit

if TYPE_CHECKING:
    from torch import nn

    from ownlatent.backbones import OwnNetwork
    from ownlatent.backbones.tap import Adapter


def begin(recipe: str | Path | Recipe | None, given: dict[str, Any]) -> tuple[Recipe, dict[str, Any]]:
    """The recipe with what was given beside it, and the changes to views, which wait until the views are chosen.

    recipe: as it is, a file, or one of the method's own by its name. given: values by dotted name, which win over
    the recipe: also a length by epochs over one by minutes, a base rate over a rate as used, a table of views
    over the recipe's and its changes. Where neither names a method it is that of `method_for`. Raises OwnlatentError.
    """
    if recipe is None and given.get("method") is None:
        told = {name: given[name] for name in ("minutes", "modality") if given.get(name) is not None}
        recipe = Recipe(method=method_for(edit(Recipe(), told)))
    start, late = _start(recipe, given.get("method"))
    early = {name: value for name, value in given.items() if not name.startswith("views.")}
    for one, other in (("epochs", "minutes"), ("minutes", "epochs"), ("optim.base_lr", "optim.lr")):
        if one in early and other not in early:
            early[other] = None
    if "views" in early:
        late = {}
    return edit(start, early), late | {name: value for name, value in given.items() if name not in early}


def method_for(recipe: Recipe) -> str:
    """The method of a run that names none: BYOL, and for up to an hour VICReg of images and SimCLR of sounds.

    With little time the networks of BYOL's family hardly begin to learn from each other, while VICReg's and Barlow
    Twins' covariances teach from the first step: 10 points on CIFAR-10 in five minutes, and on the photographs in one
    (docs/speed.md, benchmarks/results/methods.json). On spoken digits SimCLR is further by 8 points (docs/audio.md).
    """
    if recipe.minutes is None or recipe.minutes > SHORT_MINUTES:
        return Recipe().method
    return "simclr" if recipe.modality == "audio" else "vicreg"


def _start(recipe: str | Path | Recipe | None, method: str | None) -> tuple[Recipe, dict[str, Any]]:
    if recipe is None or isinstance(recipe, Recipe):
        return recipe or Recipe(), {}
    if Path(recipe).suffix == ".json":
        loaded = Recipe.load(Path(recipe))
        if method not in (None, loaded.method):
            raise OwnlatentError(f"{recipe} is a recipe for {loaded.method}: leave out --method, or --recipe")
        return loaded, {}
    if recipe in sounds.RECIPES and method in (None, "byol"):
        changes = {key: value for key, value in sounds.RECIPES[str(recipe)].items() if key != "about"}
        return edit(Recipe(), changes), {}
    from ownlatent import methods  # brings torch, which help and errors about options do not need

    method, name = method or Recipe().method, str(recipe)
    rows = methods.named_recipes(method)
    if name not in rows:
        known = f": {nearest(name, rows)}" if rows else ""
        views = f"; --views {name} takes the views of that name" if name in RECIPES else ""
        raise OwnlatentError(
            f"{method} has no recipe {name!r}{known}{views}; a file to start from is a recipe.json of a run"
        )
    late = {key: value for key, value in rows[name].items() if key.startswith("views.")}
    early = {key: value for key, value in rows[name].items() if key not in late}
    return edit(Recipe(method=method), early), late


def apart(
    data: Any,
    backbone: "str | nn.Module | None",
    fields: dict[str, Any],
    adapter: "Adapter | None" = None,
    in_place: bool = False,
) -> "tuple[dict[str, Any], OwnNetwork | None, dict[str, Any]]":
    """Fields as a recipe can hold them, and apart what it cannot: a network of one's own, and data sets as objects.

    Raises OwnlatentError for a network that cannot be made.
    """
    fields, objects, network = dict(fields), {}, None
    if callable(fields.get("layer")):
        if adapter is not None:
            raise OwnlatentError("a layer that is a function takes the images itself: leave out the adapter")
        adapter = fields.pop("layer")
    if isinstance(backbone, str) and not backbone.partition(":")[0].endswith(".py"):
        fields["backbone"], backbone = backbone, None
    if backbone is None and adapter is not None:
        raise OwnlatentError("an adapter is for a network of your own: pass that as a module, or FILE.py:NAME")
    if backbone is not None:
        from ownlatent.backbones import own_network  # brings torch, which help and errors about options do not need

        network = own_network(backbone, adapter, in_place)
    for name, value in (("data", data), ("val", fields.get("val"))):
        if isinstance(value, (list, tuple)) and all(_is_plain(each) for each in value):
            value = ",".join(map(str, value))
        if value is not None and not isinstance(value, (str, Path)):
            objects[name] = value
            value = f"object:{type(value).__name__}"
        if value is not None:
            fields[name] = str(value)
    return fields, network, objects


def _is_plain(name: Any) -> bool:
    """Whether a name can stand in a list with commas between."""
    return isinstance(name, (str, Path)) and not set(",{}") & set(str(name))
