"""What is said where a format is not for an encoder."""

from ownlatent.backbones.encoder import Encoder
from ownlatent.errors import OwnlatentError

_FOR_ALL = ("safetensors", "torchscript", "onnx")


def refusal(encoder: Encoder, format: str, why: str) -> OwnlatentError:
    """The error to raise. why: goes on after "because"."""
    spec = encoder.backbone.spec
    name = "a module of your own" if spec is None else f"the network {spec['name']}"
    others = " or ".join(", ".join(other for other in _FOR_ALL if other != format).rsplit(", ", 1))
    return OwnlatentError(f"{name} cannot be exported as {format}, because {why}: export it as {others}")


def check_named(encoder: Encoder, format: str, library: str) -> str:
    """The plain name of a network whose own output are the features. Raises OwnlatentError for others."""
    check_output(encoder, format)
    if encoder.backbone.spec is None:
        raise refusal(encoder, format, f"{library} does not know how to build it")
    return str(encoder.backbone.spec["name"]).rpartition(":")[2]


def check_output(encoder: Encoder, format: str) -> None:
    """Raise OwnlatentError if an inner layer gives the features."""
    if layer := encoder.backbone.layer:
        raise refusal(encoder, format, f"its features come from its layer {layer} and not from its own output")
