"""Choose the precision by trying it, where the hardware does not tell."""

from copy import deepcopy
from time import perf_counter

import torch

from ownlatent.backbones import Backbone

_PIXELS = 64 * 32 * 32  # in a trial batch: enough for the arithmetic to outweigh the overhead
_ROUNDS = 5
_SECONDS = 0.8  # after which no new round begins: nobody should wait for this
_GAIN = 1.1  # bfloat16 must be this much faster: it costs precision


def choose_precision(backbone: Backbone, channels: int, image_size: int, device: torch.device) -> tuple[str, str]:
    """("32" or "bf16", why) for training on a device; takes about a second on a processor.

    Accelerators get bfloat16 if they have it. Processors differ: with matrix or bfloat16 units it
    is up to twice as fast, without them slower. So forward and backward are timed both ways, in
    turn, and the fastest time of each counts, because other programs only ever make one slower.
    """
    if device.type == "cuda":
        native = torch.cuda.is_bf16_supported(including_emulation=False)
        return ("bf16", "the GPU has it") if native else ("32", "the GPU has no bfloat16")
    if device.type != "cpu":
        return "32", "bfloat16 is not proven on this accelerator"
    net = deepcopy(backbone).train().to(memory_format=torch.channels_last)
    images = torch.zeros(max(2, _PIXELS // image_size**2), channels, image_size, image_size)
    images = images.contiguous(memory_format=torch.channels_last)

    def seconds(bfloat16: bool) -> float:
        began = perf_counter()
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=bfloat16):
            features = net(images)
        features.float().sum().backward()
        return perf_counter() - began

    began = perf_counter()
    times: dict[bool, list[float]] = {False: [], True: []}
    for number in range(_ROUNDS):
        for bfloat16 in times:
            times[bfloat16].append(seconds(bfloat16))
        if number > 0 and perf_counter() - began > _SECONDS:
            break
    gain = min(times[False][1:]) / min(times[True][1:])  # the first pass of each also prepares kernels
    if gain >= _GAIN:
        return "bf16", f"measured {gain:.1f}x as fast as float32 on this processor"
    return "32", f"bfloat16 measured {gain:.1f}x as fast on this processor"
