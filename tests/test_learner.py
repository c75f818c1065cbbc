"""The form for a loop of one's own: images in, the loss out."""

from copy import deepcopy

import pytest
import torch
from torch import nn

import ownlatent
from ownlatent import learner as learners
from ownlatent import methods
from ownlatent.errors import OwnlatentError
from ownlatent.learner import BYOL, DINO, Learner, SimSiam

SMALL = {"image_size": 32, "hidden": 16, "projection": 8}
IMAGES = torch.randint(0, 256, (8, 3, 40, 48), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
LEARNERS = [value for value in vars(learners).values() if isinstance(value, type) and value.__base__ is Learner]


def net() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 8, 3, stride=2), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 10, 3))


def test_every_method_without_labels_has_one() -> None:
    wanted = {name for name in methods.names() if not methods.get(name).uses_labels} - {"random_target"}
    assert {each.method_name for each in LEARNERS} == wanted
    assert all(getattr(ownlatent, each.__name__) is each for each in LEARNERS)


@pytest.mark.parametrize("kind", LEARNERS, ids=lambda kind: kind.__name__)
def test_it_trains(kind: type[Learner]) -> None:
    torch.manual_seed(0)
    made = kind(net(), image_size=32, steps=6)
    optimizer = torch.optim.Adam(made.param_groups(), lr=1e-3)
    before = {name: p.clone() for name, p in made.net.named_parameters()}
    for _ in range(6):
        optimizer.zero_grad()
        loss = made(IMAGES)
        loss.backward()
        made.before_step()
        optimizer.step()
        made.after_step()
        assert loss.isfinite()
    assert made.progress == 1 and int(made.step) == 6
    assert all(not torch.equal(p, before[name]) for name, p in made.net.named_parameters() if p.ndim > 1)
    assert made.encoder(IMAGES[:, :, :32, :32]).shape == (8, 10)


def test_a_module_stays_as_it_is_unless_it_is_to_be_trained() -> None:
    own, kept = net(), deepcopy(net()).state_dict()
    for in_place in (False, True):
        made = BYOL(own, in_place=in_place, **SMALL)
        optimizer = torch.optim.SGD(made.parameters(), lr=0.1)
        made(IMAGES).backward()
        optimizer.step()
        assert (made.net is own) == in_place
        same = [torch.equal(value, kept[name]) for name, value in own.state_dict().items()]
        assert all(same) != in_place


def test_floats_and_bytes_are_the_same_images() -> None:
    """The compiled loops for bytes are within a hundredth of a gray level of the functions for floats."""
    made = BYOL(net(), **SMALL).eval()
    losses = []
    for images in (IMAGES, IMAGES / 255):
        torch.manual_seed(5)
        losses.append(made(images))
    torch.testing.assert_close(*losses, atol=1e-3, rtol=1e-3)


def test_the_loss_is_that_of_the_method_for_the_same_views() -> None:
    made = SimSiam(net(), **{"image_size": 32}).eval()
    views = [torch.randn(8, 3, 32, 32), torch.randn(8, 3, 32, 32)]
    assert torch.equal(made(views), made.method(views).loss)


def test_draws_follow_torchs_seed() -> None:
    made = BYOL(net(), **SMALL).eval()

    def loss(seed: int) -> torch.Tensor:
        torch.manual_seed(seed)
        return made(IMAGES).detach()

    assert torch.equal(loss(1), loss(1)) and not torch.equal(loss(1), loss(2))


def test_tau_follows_the_steps_where_their_number_is_known() -> None:
    def tau_after(steps: int | None) -> float:
        made = BYOL(net(), steps=steps, tau=0.9, **SMALL)
        for _ in range(5):
            made.after_step()
        return made.method.scheduled(made.progress)["tau"]

    assert tau_after(None) == 0.9
    assert tau_after(10) == pytest.approx(0.95)  # half of the way to 1, by half a cosine
    assert tau_after(5) == 1


def test_it_goes_on_from_its_state() -> None:
    first = BYOL(net(), steps=10, **SMALL)
    first(IMAGES).backward()
    first.after_step()
    torch.manual_seed(9)
    second = BYOL(net(), steps=10, **SMALL)
    second.load_state_dict(first.state_dict())
    assert int(second.step) == 1
    losses = []
    for made in (first, second):
        torch.manual_seed(5)
        losses.append(made(IMAGES))
    assert torch.equal(*losses)


def test_gray_images_have_views_without_colour() -> None:
    made = BYOL(nn.Conv2d(1, 8, 3), channels=1, **SMALL)
    assert made(IMAGES[:, :1]).isfinite() and all(view.grayscale == 0 for view in made.views)


def test_many_views() -> None:
    made = DINO("resnet10_w16", image_size=48)
    assert len(made.views) > 2
    made(IMAGES).backward()


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (torch.randn(8, 3, 32, 32), r"must lie in \[0, 1\]"),
        (torch.zeros(8, 32, 32, 3), "the channels before the rows"),
        (torch.zeros(8, 1, 32, 32), "channels="),
        (torch.zeros(8, 3, 32, 32, dtype=torch.int64), "not torch.int64"),
    ],
)
def test_images_of_another_kind_are_refused(images: torch.Tensor, message: str) -> None:
    with pytest.raises(OwnlatentError, match=message):
        BYOL(net(), **SMALL)(images)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"hiden": 3}, "byol takes no setting 'hiden': the nearest is hidden"),
        ({"views": "byoll"}, "no table of views 'byoll'"),
        ({"mean": (0.5,)}, "mean has 1 values for images of 3 channels"),
        ({"layer": "boddy"}, "no layer 'boddy'"),
    ],
)
def test_wrong_settings_are_refused(given: dict, message: str) -> None:
    with pytest.raises(OwnlatentError, match=message):
        BYOL(net(), **{"image_size": 32, **given})
