"""Choose the precision by trying it, where the hardware does not tell."""

from copy import deepcopy
from time import perf_counter

import torch
from torch import Tensor, nn

from ownlatent.backbones import Backbone
from ownlatent.types import Size, height_and_width

_PIXELS = 64 * 32 * 32  # in a trial batch: enough for the arithmetic to outweigh the overhead
_ROUNDS = 5
_SECONDS = 0.8  # after which no new round begins: nobody should wait for this
_GAIN = 1.1  # bfloat16 must be this much faster: it costs precision


def choose_precision(backbone: Backbone, channels: int, image_size: Size, device: torch.device) -> tuple[str, str]:
    """("32" or "bf16", why) for training on a device; takes about a second on a processor.

    Accelerators get bfloat16 if they have it. Processors differ: with matrix or bfloat16 units it
    is up to twice as fast, without them slower. So forward and backward are timed both ways, in
    turn, and the fastest time of each counts, because other programs only ever make one slower. Where
    there are not even vectors wide enough, one pass takes minutes, and nothing is tried.
    """
    if device.type == "cuda":
        native = torch.cuda.is_bf16_supported(including_emulation=False)
        return ("bf16", "the GPU has it") if native else ("32", "the GPU has no bfloat16")
    if device.type != "cpu":
        return "32", "bfloat16 is not proven on this accelerator"
    if torch.backends.mkldnn.is_available() and not torch.ops.mkldnn._is_mkldnn_bf16_supported():
        return "32", "this processor has no bfloat16"
    net = deepcopy(backbone).train().to(memory_format=torch.channels_last)
    height, width = height_and_width(image_size)
    images = torch.zeros(max(2, _PIXELS // (height * width)), channels, height, width)
    images = images.contiguous(memory_format=torch.channels_last)

    began = perf_counter()
    times: dict[str, list[float]] = {"32": [], "bf16": []}
    for number in range(_ROUNDS):
        for precision in times:
            times[precision].append(seconds_of_pass(net, images, precision))
        if number > 0 and perf_counter() - began > _SECONDS:
            break
    gain = min(times["32"][1:]) / min(times["bf16"][1:])  # the first pass of each also prepares kernels
    if gain >= _GAIN:
        return "bf16", f"measured {gain:.1f}x as fast as float32 on this processor"
    return "32", f"bfloat16 measured {gain:.1f}x as fast on this processor"


def autocast(device: str, precision: str) -> torch.autocast:
    """Within it a network computes in a precision of the recipe: "32", "bf16" or "16"."""
    return torch.autocast(device, torch.float16 if precision == "16" else torch.bfloat16, enabled=precision != "32")


def seconds_of_pass(net: nn.Module, images: Tensor, precision: str) -> float:
    """Seconds of one forward and backward pass, waited for where the device is not the processor."""
    wait = torch.cuda.synchronize if images.device.type == "cuda" else lambda: None
    wait()
    began = perf_counter()
    with autocast(images.device.type, precision):
        features = net(images)
    features.float().sum().backward()
    wait()
    return perf_counter() - began
