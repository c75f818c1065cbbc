"""Choose the precision by trying it, where the hardware does not tell."""

from copy import deepcopy
from time import perf_counter

import torch

from ownlatent.backbones import Backbone

_IMAGES = 32
_GAIN = 1.1  # bfloat16 must be this much faster: it costs precision


def choose_precision(backbone: Backbone, channels: int, image_size: int, device: torch.device) -> tuple[str, str]:
    """("32" or "bf16", why) for training on a device; takes a second or two on a processor.

    Accelerators get bfloat16 if they have it. Processors differ: with matrix or bfloat16 units it
    is up to twice as fast, without them slower, so forward and backward are timed both ways.
    """
    if device.type == "cuda":
        native = torch.cuda.is_bf16_supported(including_emulation=False)
        return ("bf16", "the GPU has it") if native else ("32", "the GPU has no bfloat16")
    if device.type != "cpu":
        return "32", "bfloat16 is not proven on this accelerator"
    net = deepcopy(backbone).train().to(memory_format=torch.channels_last)
    images = torch.zeros(_IMAGES, channels, image_size, image_size).contiguous(memory_format=torch.channels_last)

    def seconds(bfloat16: bool) -> float:
        times = []
        for _ in range(3):
            began = perf_counter()
            with torch.autocast("cpu", dtype=torch.bfloat16, enabled=bfloat16):
                features = net(images)
            features.float().sum().backward()
            times.append(perf_counter() - began)
        return min(times)

    gain = seconds(False) / seconds(True)
    if gain >= _GAIN:
        return "bf16", f"measured {gain:.1f}x as fast as float32 on this processor"
    return "32", f"bfloat16 measured {gain:.1f}x as fast on this processor"
