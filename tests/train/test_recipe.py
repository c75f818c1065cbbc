"""Recipes: edited by dotted name, kept as JSON, completed by defaults that follow the data."""

from dataclasses import FrozenInstanceError, replace
from pathlib import Path
from typing import Any

import pytest

from ownlatent.augment.recipes import RECIPES, SoundView, View
from ownlatent.errors import OwnlatentError
from ownlatent.methods import named_recipes, names, recipes, settings
from ownlatent.recipes.begin import begin
from ownlatent.train.ranges import check
from ownlatent.train.recipe import Optim, Recipe, edit, option_names
from ownlatent.train.resolve import Facts, describe, resolve

TWO = (View(blur=1.0), View(blur=0.1))
SMALL = Facts(num_images=50_000, channels=3, side=32, device="cpu")
LARGE = Facts(num_images=1_000_000, channels=3, side=400, device="cuda")


def test_edit_leaves_the_recipe_as_it_was() -> None:
    recipe = Recipe()
    assert edit(recipe, {"seed": 3}) == replace(recipe, seed=3)
    assert recipe.seed == 0
    with pytest.raises(FrozenInstanceError):
        recipe.seed = 1  # type: ignore[misc]


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("epochs", "10", 10.0),
        ("epochs", "0.5", 0.5),
        ("epochs", "none", None),
        ("minutes", 1, 1.0),
        ("image_size", "64", 64),
        ("image-size", "64", 64),
        ("batch_size", "1e3", 1000),
        ("batch_size", "auto", None),
        ("seed", "7", 7),
        ("backbone", "resnet18", "resnet18"),
        ("backbone", "auto", None),
        ("precision", "auto", "auto"),
        ("precision", "32", "32"),
        ("val", "none", None),
        ("data", "none", "none"),
    ],
)
def test_text_becomes_the_type_of_the_field(name: str, text: object, value: object) -> None:
    found = getattr(edit(Recipe(epochs=1, backbone="x", val="y", batch_size=1), {name: text}), name.replace("-", "_"))
    assert found == value and type(found) is type(value)


def test_dotted_names_reach_the_optimiser() -> None:
    recipe = edit(Recipe(), {"optim.lr": "0.2", "optim.weight-decay": 1e-4, "optim.name": "lars"})
    assert recipe.optim == Optim(lr=0.2, weight_decay=1e-4, name="lars")


def test_settings_of_method_and_backbone_are_collected() -> None:
    changes = {"method.tau": "0.99", "method.hidden": 64, "backbone.name": "text", "backbone.flag": "true"}
    recipe = edit(Recipe(), changes)
    assert recipe.method_settings == {"tau": 0.99, "hidden": 64}
    assert recipe.backbone_settings == {"name": "text", "flag": True}
    assert recipe.method == "byol" and recipe.backbone is None


def test_one_view_or_all_views() -> None:
    recipe = Recipe(views=TWO)
    assert edit(recipe, {"views.1.blur": "0.5"}).views == (TWO[0], replace(TWO[1], blur=0.5))
    assert edit(recipe, {"views.crop-scale": "0.2,1"}).views == tuple(replace(v, crop_scale=(0.2, 1.0)) for v in TWO)
    both = edit(recipe, {"views.blur": 0, "views.0.blur": 0.3})
    assert [view.blur for view in both.views or ()] == [0.3, 0.0], "the later change wins"


def test_a_change_of_views_that_are_not_chosen_yet_is_not_lost() -> None:
    try:
        recipe = edit(Recipe(), {"views.blur": 0.5})
    except OwnlatentError:
        return
    assert recipe.views and all(view.blur == 0.5 for view in recipe.views)


@pytest.mark.parametrize(
    ("name", "nearest"),
    [
        ("epohcs", "--epochs"),
        ("batchsize", "--batch-size"),
        ("optim.larning_rate", "--optim.lr"),
        ("optim.weight_decya", "--optim.weight-decay"),
        ("views.blurr", "--views.blur"),
        ("views.0.blurr", "--views.blur"),
        ("views.2.blur", "0 to 1"),
        ("views.0", "--views.0.blur"),
        ("seed.lr", "--seed"),
    ],
)
def test_unknown_names_are_refused_with_the_nearest(name: str, nearest: str) -> None:
    with pytest.raises(OwnlatentError, match="there is no option --") as caught:
        edit(Recipe(views=TWO), {name: 1})
    assert nearest in str(caught.value)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("epochs", "many"),
        ("epochs", "nan"),
        ("epochs", True),
        ("epochs", [1]),
        ("image_size", "32.5"),
        ("batch_size", "inf"),
        ("seed", None),
        ("seed", "none"),
        ("optim.lr", "fast"),
        ("views.crop_scale", "0.5"),
        ("views.crop_scale", "a,b"),
        ("views.0.blur", "often"),
    ],
)
def test_values_of_another_type_are_refused(name: str, value: object) -> None:
    with pytest.raises(OwnlatentError, match=r"--\S+ (takes|needs)"):
        edit(Recipe(views=TWO), {name: value})


def test_every_option_can_be_set() -> None:
    """No field is listed that `edit` does not know, and none that changes nothing."""
    texts = ("0.25", "9", "text", "true", "false", "audio")
    for name in option_names():
        of_sounds = name.removeprefix("views.") in SoundView.__dataclass_fields__
        of_images = name.removeprefix("views.") in View.__dataclass_fields__
        start = Recipe(modality="audio", views=(SoundView(),)) if of_sounds and not of_images else Recipe(views=TWO)
        pairs = ("crop_scale", "crop_ratio", "blur_sigma", "crop_height", "crop_width", "snr")
        sample = "0.3,0.7" if name.endswith(pairs) else None
        sample = "simclr" if name == "views" else sample
        changed = [text for text in ([sample] if sample else texts) if _changes(start, name, text)]
        assert changed, name


def _changes(recipe: Recipe, name: str, text: str) -> bool:
    try:
        return edit(recipe, {name: text}) != recipe
    except OwnlatentError:
        return False


def test_json_keeps_everything(tmp_path: Path) -> None:
    recipe = edit(
        Recipe(data="photos", val="val", minutes=2.5, views=TWO, seed=3, workers=0),
        {"optim.lr": 0.1 + 0.2, "method.tau": 0.97, "backbone.drop_rate": 0.1, "views.0.crop_scale": (0.1, 0.9)},
    )
    recipe.save(tmp_path / "recipe.json")
    assert Recipe.load(tmp_path / "recipe.json") == recipe
    Recipe().save(tmp_path / "recipe.json")
    assert Recipe.load(tmp_path / "recipe.json") == Recipe()


def test_a_resolved_recipe_repeats_itself(tmp_path: Path) -> None:
    """Saved, loaded and resolved again, even on other data and hardware, it does not change."""
    recipe = resolve(Recipe(data="x"), SMALL, {"views.1.blur": 0.4})
    recipe.save(tmp_path / "recipe.json")
    loaded = Recipe.load(tmp_path / "recipe.json")
    assert loaded == recipe
    assert resolve(loaded, LARGE, {}) == recipe


@pytest.mark.parametrize(("facts", "changes"), [(SMALL, {}), (LARGE, {}), (SMALL, {"minutes": 3})])
def test_resolving_leaves_nothing_open(facts: Facts, changes: dict) -> None:
    recipe = resolve(edit(Recipe(data="x"), changes), facts, {})
    open_fields = {name for name, value in vars(recipe).items() if value is None}
    assert open_fields == {"duration", "val", "init_from", "layer", "epochs" if changes else "minutes"}
    assert None not in vars(recipe.optim).values()
    check(recipe)
    assert all(recipe.backbone in line for line in describe(recipe) if line.startswith("backbone"))


def test_small_images_get_a_small_network_and_no_blur() -> None:
    recipe = resolve(Recipe(data="x"), SMALL, {})
    assert recipe.image_size == 32
    assert recipe.views and [view.blur for view in recipe.views] == [0, 0]
    assert recipe.views[0].solarize != recipe.views[1].solarize


def test_large_images_on_an_accelerator_get_the_papers_setting() -> None:
    recipe = resolve(Recipe(data="x"), LARGE, {})
    assert recipe.image_size == 224 and recipe.backbone == "resnet50"
    assert recipe.views == RECIPES["byol"]
    widths = {name: recipe.method_settings[name] for name in ("hidden", "projection", "tau")}
    assert widths == {"hidden": 4096, "projection": 256, "tau": 0.99}
    longer = resolve(Recipe(data="x", epochs=1000), LARGE, {})
    assert longer.method_settings["tau"] == 0.996


@pytest.mark.parametrize(
    ("side", "device", "size"),
    [(28, "cpu", 28), (32, "cpu", 32), (47, "cpu", 32), (64, "cpu", 64), (400, "cpu", 96), (400, "cuda", 224),
     (100, "cuda", 96)],
)  # fmt: skip
def test_images_are_not_enlarged(side: int, device: str, size: int) -> None:
    assert resolve(Recipe(data="x"), Facts(1000, 3, side, device), {}).image_size == size


@pytest.mark.parametrize("count", [2, 5, 31, 32, 60, 300, 1000, 3000, 50_000])
@pytest.mark.parametrize("accumulate", [1, 2])
def test_batches_follow_the_number_of_images(count: int, accumulate: int) -> None:
    recipe = resolve(Recipe(data="x", accumulate=accumulate), Facts(count, 3, 32, "cpu"), {})
    assert recipe.batch_size
    assert 2 <= recipe.batch_size <= min(count, 256) and recipe.batch_size % accumulate == 0
    assert recipe.batch_size >= min(count - count % accumulate, 32)


def test_the_learning_rate_follows_the_batch_and_the_optimiser() -> None:
    rates = {
        (name, size): resolve(Recipe(data="x", batch_size=size, optim=Optim(name=name)), SMALL, {}).optim.lr
        for name in ("sgd", "lars", "adamw")
        for size in (64, 128)
    }
    assert all(rates[name, 128] == 2 * rates[name, 64] for name in ("sgd", "lars", "adamw"))
    assert len(set(rates.values())) > 3
    assert resolve(Recipe(data="x", optim=Optim(lr=0.7)), SMALL, {}).optim.lr == 0.7


def test_what_is_given_wins() -> None:
    given = Recipe(
        data="x",
        backbone="resnet34",
        epochs=3,
        image_size=48,
        batch_size=17,
        workers=0,
        optim=Optim(
            name="adamw",
            base_lr=256 / 17,
            lr=1.0,
            end_lr=0.2,
            bias_lr=0.3,
            weight_decay=0.0,
            end_weight_decay=0.4,
            decay_all=True,
            momentum=0.5,
            eta=0.1,
            warmup=0.0,
        ),
        views=TWO,
        method_settings={**settings("byol"), "hidden": 1, "tau": 0.3},
    )
    assert resolve(given, SMALL, {}) == given


def test_a_base_rate_is_scaled_by_the_batch_and_a_rate_as_used_is_not() -> None:
    """lr = base_lr * batch / 256; where both are given the rate as used decides."""
    scaled = resolve(Recipe(data="x", batch_size=64, optim=Optim(base_lr=0.4)), SMALL, {}).optim
    assert (scaled.lr, scaled.base_lr) == (pytest.approx(0.1), pytest.approx(0.4))
    used = resolve(Recipe(data="x", batch_size=64, optim=Optim(base_lr=0.4, lr=0.3)), SMALL, {}).optim
    assert used.lr == 0.3
    alone = resolve(Recipe(data="x", batch_size=64, optim=Optim(lr=0.3)), SMALL, {}).optim
    assert (alone.lr, alone.base_lr) == (0.3, pytest.approx(1.2))


def test_another_optimiser_than_the_methods_gets_its_own_rate() -> None:
    """DINO's recipe is for AdamW: its rate would be far too small, and its decay too large, for SGD."""
    own = resolve(Recipe(data="x", method="dino"), SMALL, {}).optim
    assert own.name == "adamw" and own.weight_decay == 0.04
    other = resolve(Recipe(data="x", method="dino", optim=Optim(name="sgd")), SMALL, {}).optim
    assert other.base_lr == resolve(Recipe(data="x", optim=Optim(name="sgd")), SMALL, {}).optim.base_lr
    assert other.weight_decay == 5e-4


@pytest.mark.parametrize("name", names())
def test_every_method_is_resolved_for_every_circumstance(name: str) -> None:
    for facts in (replace(SMALL, classes=3), replace(LARGE, classes=3), replace(LARGE, device="cpu", classes=3)):
        for length in ({}, {"epochs": 1000}, {"minutes": 5}):
            recipe = resolve(edit(Recipe(data="x", method=name), length), facts, {})
            assert None not in vars(recipe.optim).values() and recipe.views
            assert set(recipe.method_settings) == set(settings(name))
            assert resolve(recipe, SMALL, {}) == recipe


@pytest.mark.parametrize("name", names())
@pytest.mark.parametrize("facts", [SMALL, LARGE], ids=["processor", "accelerator"])
def test_a_named_recipe_is_the_same_on_every_machine(name: str, facts: Facts) -> None:
    for row in named_recipes(name):
        start, changes = begin(row, {"method": name})
        here = resolve(replace(start, data="x", batch_size=256, workers=2), replace(facts, classes=3), changes)
        there = resolve(replace(start, data="x", batch_size=256, workers=2), replace(LARGE, classes=3), changes)
        assert here == there and here.method == name
        stated = recipes(name)[row]
        assert all(here.method_settings[k.removeprefix("method.")] == v for k, v in stated.items() if "method." in k)
        assert all(getattr(here, k) == v for k, v in stated.items() if k in ("backbone", "image_size", "epochs"))
        optim = {k.removeprefix("optim."): v for k, v in stated.items() if k.startswith("optim.")}
        assert all(getattr(here.optim, k) == pytest.approx(v) if k != "name" else here.optim.name == v
                   for k, v in optim.items())  # fmt: skip


def test_a_recipe_by_an_unknown_name_names_the_nearest() -> None:
    with pytest.raises(OwnlatentError, match=r"simclr has no recipe 'imagnet': the nearest is imagenet"):
        begin("imagnet", {"method": "simclr"})
    with pytest.raises(OwnlatentError, match=r"random_target has no recipe 'imagenet'; .*recipe\.json"):
        begin("imagenet", {"method": "random_target"})


def test_what_is_given_beside_a_recipe_wins(tmp_path: Path) -> None:
    """A length by minutes over one by epochs, a base rate over a rate as used, a table of views over changes to one."""
    stored = resolve(Recipe(data="x", epochs=3), SMALL, {})
    stored.save(tmp_path / "recipe.json")
    start, _ = begin(tmp_path / "recipe.json", {"optim.base_lr": 0.5, "minutes": 2})
    again = resolve(start, SMALL, {}).optim
    assert (again.base_lr, again.lr) == (0.5, pytest.approx(0.5 * 128 / 256))
    assert (start.minutes, start.epochs) == (2, None)
    assert begin("cifar10", {"method": "directpred"})[1] == {"views.blur": 0.0}
    assert begin("cifar10", {"method": "directpred", "views": "byol", "views.flip": 0})[1] == {"views.flip": 0}
    with pytest.raises(OwnlatentError, match="a recipe for byol: leave out --method"):
        begin(tmp_path / "recipe.json", {"method": "simclr"})
    with pytest.raises(OwnlatentError, match=r"byol has no recipe 'simclr': .* --views simclr takes the views"):
        begin("simclr", {})


def test_classes_that_the_data_do_not_have_are_refused() -> None:
    given = edit(Recipe(data="x", method="supervised"), {"method.classes": 2})
    with pytest.raises(OwnlatentError, match=r"10 classes, and --method\.classes is 2"):
        resolve(given, replace(SMALL, classes=10), {})


def test_views_are_taken_by_the_name_of_their_table() -> None:
    assert edit(Recipe(), {"views": "dino"}).views == RECIPES["dino"]
    assert edit(Recipe(views=TWO), {"views": "auto"}).views is None
    with pytest.raises(OwnlatentError, match=r"no table of views of images 'dinno': the nearest .*dino"):
        edit(Recipe(), {"views": "dinno"})


@pytest.mark.parametrize(("name", "views"), [("byol", "dino"), ("simclr", "supervised"), ("dino", "supervised")])
def test_views_that_a_method_cannot_use_are_refused(name: str, views: str) -> None:
    with pytest.raises(OwnlatentError, match=f"{name} .*views.*ownlatent list views"):
        resolve(edit(Recipe(data="x", method=name), {"views": views}), SMALL, {})


def test_view_changes_come_after_the_choice_of_views() -> None:
    views = resolve(Recipe(data="x"), SMALL, {"views.1.blur": 0.4, "views.flip": 0}).views or ()
    assert [(view.blur, view.flip) for view in views] == [(0, 0), (0.4, 0)]
    with pytest.raises(OwnlatentError, match=r"--views\.1\.blur"):
        resolve(Recipe(data="x"), SMALL, {"views.1.blur": 2})


def test_more_images_than_there_are_is_refused() -> None:
    with pytest.raises(OwnlatentError, match="there are 60 images, fewer than a batch of 64: give --batch-size 32"):
        resolve(Recipe(data="x", batch_size=64), Facts(60, 3, 32, "cpu"), {})


@pytest.mark.parametrize(
    "changes",
    [
        {"epochs": 0},
        {"minutes": -1},
        {"epochs": 1, "minutes": 1},
        {"image_size": 7},
        {"batch_size": 0},
        {"batch_size": 10, "accumulate": 4},
        {"accumulate": 0},
        {"seed": -1},
        {"workers": -1},
        {"accelerator": "tpu"},
        {"precision": "8"},
        {"loading": "fast"},
        {"optim.name": "adam"},
        {"optim.lr": 0},
        {"optim.eta": 0},
        {"optim.weight_decay": -1e-9},
        {"optim.momentum": 1},
        {"optim.warmup": 1},
        {"views.flip": 1.1},
        {"views.0.solarize": -0.1},
        {"views.crop_scale": (0, 1)},
        {"views.crop_scale": (0.9, 0.1)},
        {"views.crop_ratio": (2, 1)},
        {"views.blur_sigma": (0, 1)},
    ],
    ids=str,
)
def test_check_refuses_values_out_of_range(changes: dict) -> None:
    with pytest.raises(OwnlatentError, match="--"):
        check(edit(Recipe(views=TWO), changes))


def test_check_takes_the_ends_of_the_ranges() -> None:
    ends = {"image_size": 8, "workers": 0, "seed": 0, "optim.momentum": 0, "optim.warmup": 0, "optim.weight_decay": 0}
    check(edit(Recipe(views=TWO), {**ends, "views.flip": 1, "views.blur": 0, "views.crop_scale": (1, 1)}))
    check(Recipe())


@pytest.mark.parametrize(
    ("given", "method"),
    [
        ({}, "byol"),
        ({"minutes": "60"}, "vicreg"),
        ({"minutes": 61.0}, "byol"),
        ({"epochs": 3}, "byol"),
        ({"minutes": 5, "method": "byol"}, "byol"),
        ({"minutes": 5, "method": "dino"}, "dino"),
    ],
)
def test_a_short_run_that_names_no_method_is_vicreg(given: dict[str, Any], method: str):
    assert begin(None, {"data": "x", **given})[0].method == method


def test_what_is_given_as_a_recipe_keeps_its_method():
    assert begin(Recipe(data="x", minutes=5.0), {})[0].method == "byol"
    assert begin("imagenet", {"data": "x", "minutes": 5.0})[0].method == "byol"


@pytest.mark.parametrize(
    ("recipe", "name", "modality"),
    [
        (Recipe(views=TWO), "views.fader", "audio"),
        (Recipe(modality="audio", views=(SoundView(),)), "views.0.blur", "image"),
    ],
)
def test_a_setting_of_the_other_modality_is_named(recipe: Recipe, name: str, modality: str) -> None:
    with pytest.raises(OwnlatentError, match=f"give --modality {modality}"):
        edit(recipe, {name: "0.5"})
