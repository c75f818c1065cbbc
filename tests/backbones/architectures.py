"""Networks of every kind, and what must hold for each when a method is wrapped around it.

Used by tests/backbones/test_any_network.py and by benchmarks/anywhere.py.
"""

from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ownlatent import BYOL, backbones
from ownlatent.backbones.encoder import Encoder
from ownlatent.export.encoder import load_encoder, save_encoder

TAU = 0.9


@dataclass(frozen=True)
class Case:
    """A network, the layer that gives its features, and the side of the images that it takes."""

    name: str
    make: Callable[[], nn.Module] | None = None
    layer: Any = None
    size: int = 64
    pool: str = "mean"
    adapter: Callable[[nn.Module, Tensor], Any] | None = None

    @property
    def network(self) -> str | nn.Module:
        return self.name if self.make is None else self.make()


class Shared(nn.Module):
    """One convolution twice, under two names, and no normalisation."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, stride=2, padding=1)
        self.first = nn.Conv2d(8, 8, 3, padding=1)
        self.second = self.first

    def forward(self, x: Tensor) -> Tensor:
        return self.second(self.first(self.stem(x).relu()).relu())


class Frozen(nn.Module):
    """A first part that does not learn, with a BatchNorm that stays in evaluation mode."""

    def __init__(self) -> None:
        super().__init__()
        self.frozen = nn.Sequential(nn.Conv2d(3, 8, 3, stride=2), nn.BatchNorm2d(8)).requires_grad_(False)
        self.head = nn.Sequential(nn.ReLU(), nn.Conv2d(8, 12, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.classifier = nn.Linear(12, 4)

    def train(self, mode: bool = True) -> "Frozen":
        super().train(mode)
        self.frozen.eval()
        return self

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(self.head(self.frozen(x)))


class Counting(nn.Module):
    """Counts its passes in a buffer of integers, also in evaluation, and draws random numbers there."""

    passes: Tensor
    table: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Conv2d(3, 8, 3, stride=2)
        self.register_buffer("passes", torch.zeros((), dtype=torch.int64))
        self.register_buffer("table", torch.arange(6, dtype=torch.int16))

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        self.passes += 1
        noise = torch.rand((), device=x.device)
        return {"noise": noise, "features": self.body(x).mean((2, 3))}


class TwoInputs(nn.Module):
    """Takes a dictionary with two entries and gives a tuple."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Conv2d(3, 6, 3, stride=2)
        self.scale = nn.Linear(1, 6)

    def forward(self, given: dict[str, Tensor]) -> tuple[int, Tensor]:
        return 7, self.body(given["image"]).flatten(2).mean(2) + self.scale(given["exposure"])


class UNet(nn.Module):
    """Two stages down and up; its inner layer has the features."""

    def __init__(self) -> None:
        super().__init__()
        self.down1 = nn.Sequential(nn.Conv2d(3, 8, 3, stride=2, padding=1), nn.BatchNorm2d(8), nn.ReLU())
        self.down2 = nn.Sequential(nn.Conv2d(8, 16, 3, stride=2, padding=1), nn.BatchNorm2d(16), nn.ReLU())
        self.middle = nn.Conv2d(16, 24, 3, padding=1)
        self.up = nn.ConvTranspose2d(24, 8, 2, stride=2)
        self.out = nn.ConvTranspose2d(16, 1, 2, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        first = self.down1(x)
        return self.out(torch.cat([first, self.up(self.middle(self.down2(first)))], 1))


def _segmentation(name: str) -> Callable[[], nn.Module]:
    def make() -> nn.Module:
        import torchvision

        return torchvision.models.get_model(name, weights=None, weights_backbone=None, num_classes=3)

    return make


def _detection() -> nn.Module:
    import torchvision

    net = torchvision.models.detection.fasterrcnn_mobilenet_v3_large_320_fpn(weights=None, weights_backbone=None)
    return net.backbone


def _tiny_hf(name: str, **settings: Any) -> Callable[[], nn.Module]:
    def make() -> nn.Module:
        import transformers

        return transformers.AutoModel.from_config(transformers.AutoConfig.for_model(name, **settings))

    return make


def _own() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 8, 3, stride=2), nn.ReLU(), nn.Conv2d(8, 16, 3, stride=2))


def _exposed(net: nn.Module, x: Tensor) -> Any:
    return net({"image": x, "exposure": x.new_ones(len(x), 1)})


TIMM = [
    Case(f"timm:{name}", size=32)
    for name in (
        "coat_tiny",
        "convit_tiny",
        "convnext_atto_rms",
        "cpubone_nano",
        "cs3darknet_focus_s",
        "cspnext_tiny",
        "deit_tiny_patch16_224",
        "dpn48b",
        "edgenext_xx_small",
        "efficientformerv2_s0",
        "efficientvit_b0",
        "ese_vovnet19b_slim_dw",
        "fasternet_t0",
        "ghostnet_050",
        "gmlp_ti16_224",
        "hardcorenas_b",
        "hgnetv2_b0",
        "iformer_t",
        "inception_next_atto",
        "lcnetv2_small",
        "levit_128",
        "lowformer_b0",
        "mambaout_femto",
        "mobilenetv3_small_050",
        "mobilevit_xxs",
        "nest_tiny",
        "nf_regnet_b0",
        "pit_ti_224",
        "pvt_v2_b0",
        "regnetx_004_tv",
        "repghostnet_050",
        "rexnet_100",
        "shvit_s1",
        "starnet_s050",
        "swiftformer_xs",
        "tinynet_e",
        "visformer_tiny",
        "vit_tiny_patch16_224",
        "vit_tiny_patch16_dinov3_qkvb",
        "vit_tiny_r_s16_p8_224",
        "xcit_nano_12_p8_224",
    )
]
# One of every further family of timm that has a network with less than 30 M parameters, but for fastvit: its stem
# convolves the image with one pixel and a stride of 2, of which torch 2.15 damages its memory on processors with AVX2.
SLOW = [
    *(
        Case(f"timm:{name}", size=size)
        for name, size in (
            ("crossvit_tiny_240", 240),
            ("csatv2", 64),
            ("eca_botnext26ts_256", 96),
            ("efficientformer_l1", 224),
            ("efficientvim_m1", 64),
            ("efficientvit_m0", 224),
            ("gernet_s", 64),
            ("inception_v3", 64),
            ("tresnet_m", 64),
        )
    ),
    *(
        Case(f"timm:{name}", size=32)
        for name in (
            "cait_xxs24_224",
            "coatnet_nano_cc_224",
            "convmixer_768_32",
            "davit_tiny",
            "densenet121",
            "dla34",
            "focalnet_tiny_srf",
            "gcvit_xxtiny",
            "hiera_tiny_224",
            "hrnet_w18_small",
            "legacy_seresnet18",
            "legacy_xception",
            "mvitv2_tiny",
            "poolformer_s12",
            "rdnet_tiny",
            "repvit_m1",
            "res2net50_26w_4s",
            "resnest26d",
            "resnet18",
            "resnetv2_18",
            "sam2_hiera_tiny",
            "selecsls42",
            "sequencer2d_s",
            "skresnet18",
            "swin_tiny_patch4_window7_224",
            "swinv2_cr_tiny_224",
            "swinv2_tiny_window8_256",
            "tiny_vit_5m_224",
            "tnt_s_legacy_patch16_224",
            "twins_svt_small",
            "vit_srelpos_small_patch16_224",
            "vitamin_small_224",
            "volo_d1_224",
            "xception41p",
        )
    ),
    *(
        Case(f"torchvision:{name}")
        for name in ("resnet18", "densenet121", "googlenet", "convnext_tiny", "swin_t", "swin_v2_t")
    ),
    Case("fcn_resnet50", _segmentation("fcn_resnet50"), "backbone.layer2"),
]
TORCHVISION = [
    Case(f"torchvision:{name}")
    for name in (
        *("mobilenet_v2", "mobilenet_v3_small", "shufflenet_v2_x0_5", "squeezenet1_1", "mnasnet0_5"),
        *("efficientnet_b0", "regnet_y_400mf"),
    )
]
SEGMENTATION = [
    Case("lraspp_mobilenet_v3_large", _segmentation("lraspp_mobilenet_v3_large"), "backbone[high]"),
    Case("deeplabv3_mobilenet_v3_large", _segmentation("deeplabv3_mobilenet_v3_large"), "backbone"),
    Case("fasterrcnn_mobilenet_v3_large_320_fpn", _detection, "[0]"),
]
HUGGING_FACE = [
    Case(
        "hf vit",
        _tiny_hf(
            "vit",
            hidden_size=32,
            num_hidden_layers=2,
            num_attention_heads=2,
            intermediate_size=64,
            image_size=64,
            patch_size=16,
        ),
        "[last_hidden_state]",
        pool="class",
    ),
    Case("hf resnet", _tiny_hf("resnet", embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1]), None),
    Case(
        "hf convnextv2",
        _tiny_hf("convnextv2", hidden_sizes=[8, 16, 24, 32], depths=[1, 1, 1, 1], image_size=64),
        "encoder.stages.2",
    ),
]
OWN = [
    Case("three layers", _own, -2),
    Case("shared weights, no normalisation", Shared),
    Case("a frozen part", Frozen, "head"),
    Case("buffers of integers", Counting, "[features]"),
    Case("two inputs", TwoInputs, "[1]", adapter=_exposed),
    Case("inner layer of a U-Net", UNet, "middle"),
]


def state_of(net: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in net.state_dict().items()}


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def examine(case: Case, scratch: Path) -> int:
    """Wrap BYOL around a network and hold it to everything that is promised; the width of its features.

    Raises AssertionError.
    """
    torch.manual_seed(0)
    made = backbones.create(case.network, image_size=case.size, layer=case.layer, pool=case.pool, adapter=case.adapter)
    net = made.net.to(memory_format=torch.channels_last)  # as the views are, which saves half of the time
    before, random_state = state_of(net), torch.get_rng_state()
    modes = [module.training for module in net.modules()]
    again = backbones.create(net, image_size=case.size, layer=case.layer, pool=case.pool, adapter=case.adapter)
    assert same(before, state_of(net)), "measuring changed weights or buffers"
    assert torch.equal(random_state, torch.get_rng_state()), "measuring changed the random state"
    assert modes == [module.training for module in net.modules()], "measuring changed the mode of a part"
    assert again.num_features == made.num_features > 0 and again.tap == made.tap

    learner = BYOL(
        net,
        **{"layer": case.layer, "pool": case.pool, "adapter": case.adapter, "image_size": case.size, "in_place": True},
        **{"hidden": 32, "projection": 16, "tau": TAU, "views": "byol_small"},
    )
    assert learner.net is net
    images = torch.randint(0, 256, (2, 3, case.size, case.size), dtype=torch.uint8)
    optimizer = torch.optim.SGD([p for p in learner.parameters() if p.requires_grad], lr=1e-3)
    reached = _reached(case, net, images)
    method: Any = learner.method
    for _ in range(2):
        optimizer.zero_grad()
        loss = learner(images)
        assert loss.shape == () and loss.isfinite(), f"the loss is {loss}"
        loss.backward()
        graded = {name for name, p in net.named_parameters() if p.grad is not None}
        assert graded == reached, f"gradients differ from those of the layer: {sorted(graded ^ reached)[:4]}"
        assert not [p for p in method.target.parameters() if p.grad is not None], "a gradient in the target"
        heads = [*method.projector.parameters(), *method.predictor.parameters()]
        assert all(p.grad is not None for p in heads), "a head without a gradient"
        optimizer.step()
        old = [p.clone() for p in method.target.parameters()]
        learner.after_step()
        online = [*net.parameters(), *method.projector.parameters()]
        for target, was, now in zip(method.target.parameters(), old, online, strict=True):
            torch.testing.assert_close(target, TAU * was + (1 - TAU) * now, msg="the target does not follow")
    _each_once(learner)
    _survives(case, made, learner, images, scratch)
    return made.num_features


def _reached(case: Case, net: nn.Module, images: Tensor) -> set[str]:
    """The parameters that the layer's output depends on, by a plain hook and a pass through the whole network."""
    copy = deepcopy(net).train()
    tap = backbones.create(copy, image_size=case.size, layer=case.layer, pool=case.pool, adapter=case.adapter).tap
    found: list[Any] = []
    if tap.layer:
        copy.get_submodule(tap.layer).register_forward_hook(lambda module, given, output: found.append(output))
    output = (tap.adapter or nn.Module.__call__)(copy, images.float() / 255)
    output = found[-1] if tap.layer else output
    tensor = output if isinstance(output, Tensor) else backbones.tap.part_of(output, tap.key)
    tensor.float().pow(2).sum().backward()
    return {name for name, p in copy.named_parameters() if p.grad is not None}


def _each_once(learner: nn.Module) -> None:
    """No tensor of the state dict lies under two names, but for those that the network itself shares."""
    seen: dict[tuple[int, int], str] = {}
    own = len({(value.data_ptr(), value.numel()) for value in learner.net.state_dict().values() if value.numel()})
    names = [name for name, value in learner.net.state_dict().items() if value.numel()]
    shared = len(names) - own
    repeated = 0
    for name, value in learner.state_dict().items():
        if value.numel():
            key = (value.data_ptr(), value.numel())
            repeated += key in seen
            seen.setdefault(key, name)
    assert repeated == 2 * shared, f"{repeated} tensors lie under two names, and the network shares {shared}"


def _survives(case: Case, made: backbones.Backbone, learner: Any, images: Tensor, scratch: Path) -> None:
    """Written and read again, the encoder gives the same features to the bit."""
    encoder = Encoder(made, case.size, learner.mean, learner.std).eval()
    save_encoder(encoder, scratch)
    fresh = None if case.make is None else backbones.own_network(case.make(), case.adapter)
    loaded = load_encoder(scratch, fresh).to(memory_format=torch.channels_last)  # as the other: sums in the same order
    with torch.no_grad():
        torch.manual_seed(1)
        first = encoder(images)
        torch.manual_seed(1)
        second = loaded(images)
    assert first.shape == (2, made.num_features) and torch.equal(first, second), "saved and loaded differ"
