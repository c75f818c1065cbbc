"""Networks by name: this package's own, timm's, torchvision's and transformers'."""

from typing import Any

from torch import nn

from ownlatent.backbones import byol_a, small
from ownlatent.errors import OwnlatentError, nearest
from ownlatent.types import Size

NETWORKS = {**small.NETWORKS, **byol_a.NETWORKS}
# What networks raise when their settings or the images' shape do not suit them.
REFUSALS = (TypeError, ValueError, AssertionError, RuntimeError, AttributeError, KeyError, IndexError)
_NEED_TRANSFORMERS = "networks of Hugging Face need transformers: pip install 'ownlatent[transformers]'"


def names() -> list[str]:
    """Every name that `build` takes without a prefix."""
    return sorted({*NETWORKS, *_timm_names(), *_torchvision_names()})


def library_of(name: str) -> str:
    """Which of "ownlatent", "timm", "torchvision" and "hf" has a network of this name. Raises OwnlatentError."""
    if name.startswith("hf:"):
        return "hf"
    prefix, _, plain = name.rpartition(":")
    if name in NETWORKS:
        return "ownlatent"
    if prefix in ("", "timm") and plain.partition(".")[0] in _timm_names():  # behind a dot: which of its weights
        return "timm"
    if prefix in ("", "torchvision") and plain in _torchvision_names():
        return "torchvision"
    known = {"timm": _timm_names, "torchvision": _torchvision_names}.get(prefix, names)()
    raise OwnlatentError(f"there is no backbone {name!r}: {nearest(plain, known)}")


def build(name: str, channels: int, image_size: Size, pretrained: bool, keywords: dict[str, Any]) -> nn.Module:
    """A network without its classifier, by its library. Raises OwnlatentError."""
    library = library_of(name)
    plain = name.removeprefix("hf:") if library == "hf" else name.rpartition(":")[2]
    if library == "ownlatent":
        if keywords or pretrained:
            raise OwnlatentError(f"the backbone {name} takes no settings and has no pretrained weights: leave them out")
        return NETWORKS[name](channels)
    try:
        if library == "hf":
            return _build_hf(plain, channels, image_size, pretrained, keywords)
        if library == "timm":
            return build_timm(plain, image_size, pretrained, keywords)[0]
        return _build_torchvision(plain, image_size, pretrained, keywords)
    except OwnlatentError:
        raise
    except Exception as error:
        if pretrained:  # fetching raises what the hub's and the system's libraries like
            raise OwnlatentError(
                f"the weights of {name} cannot be had ({first_line(error)}): they may need a network "
                f"connection; weights that are a file are {name}=FILE"
            ) from error
        if isinstance(error, OSError) and library == "hf":
            raise OwnlatentError(
                f"{plain} cannot be had ({first_line(error)}): name a folder with a config.json, or a network of the "
                "hub, which needs a network connection"
            ) from error
        if not isinstance(error, REFUSALS):
            raise
        raise OwnlatentError(f"the backbone {name} refused its settings ({first_line(error)}): change them") from error


def pretrained_input(name: str) -> tuple[int, list[float], list[float]] | None:
    """Side in pixels, mean and std that the library's weights of a network expect, or None if there are none."""
    library, plain = library_of(name), name.rpartition(":")[2]
    if library == "timm":
        import timm

        found = timm.get_pretrained_cfg(plain)
        return None if found is None else (found.input_size[-1], list(found.mean), list(found.std))
    if library == "torchvision":
        import torchvision

        transforms = torchvision.models.get_model_weights(plain).DEFAULT.transforms()  # type: ignore[attr-defined]
        return transforms.crop_size[0], list(transforms.mean), list(transforms.std)
    return None


def first_line(error: Exception) -> str:
    """What an error says, short enough for a sentence."""
    return (str(error).strip() or type(error).__name__).splitlines()[0][:120]


def _timm_names() -> list[str]:
    import timm

    return timm.list_models()


def _torchvision_names() -> list[str]:
    import torchvision

    return torchvision.models.list_models(module=torchvision.models)


def build_timm(
    name: str, image_size: Size, pretrained: bool, keywords: dict[str, Any]
) -> tuple[nn.Module, dict[str, Any]]:
    """timm's network without a classifier, and all the keywords that it was made from."""
    import timm

    # Only networks with position embeddings take an image size, and of these not all take others than that.
    fixed = {"img_size": image_size}
    dynamic = {**fixed, "dynamic_img_size": True}  # for crops of other sizes
    for sizes in ({**dynamic, "dynamic_img_pad": True}, dynamic, fixed, {}):
        arguments = {**sizes, **keywords}
        try:
            return timm.create_model(name, pretrained=pretrained, num_classes=0, **arguments), arguments
        except TypeError:
            if not sizes:
                raise
    raise AssertionError


def torchvision_arguments(name: str, image_size: Size, keywords: dict[str, Any]) -> dict[str, Any]:
    """The keywords that torchvision's network is made from, with those that `keywords` leave open."""
    usual: dict[str, Any] = {"image_size": image_size} if name.startswith("vit_") else {}
    if name in ("googlenet", "inception_v3"):  # their auxiliary heads would come along in training
        usual = {"aux_logits": False, "init_weights": True}
    return {**usual, **keywords}


def _build_torchvision(name: str, image_size: Size, pretrained: bool, keywords: dict[str, Any]) -> nn.Module:
    import torchvision

    keywords = torchvision_arguments(name, image_size, keywords)
    net = torchvision.models.get_model(name, weights="DEFAULT" if pretrained else None, **keywords)
    if name.startswith(("alexnet", "squeezenet", "vgg")):
        return net.features  # what follows belongs to the classifier, also its pooling
    for head in ("fc", "classifier", "heads", "head"):
        if hasattr(net, head):
            setattr(net, head, nn.Identity())
    return net


def _build_hf(name: str, channels: int, image_size: Size, pretrained: bool, keywords: dict[str, Any]) -> nn.Module:
    """By its configuration, of which keywords change entries; or they hold all of it, as "config"."""
    try:
        from transformers import AutoConfig, AutoModel
    except ImportError:
        raise OwnlatentError(_NEED_TRANSFORMERS) from None
    if "config" in keywords:
        config = AutoConfig.for_model(**keywords["config"])
    else:
        config = AutoConfig.from_pretrained(name)
        usual = {"image_size": image_size, "num_channels": channels}
        for key, value in {**{key: value for key, value in usual.items() if hasattr(config, key)}, **keywords}.items():
            if not hasattr(config, key):
                raise OwnlatentError(f"the configuration of {name} has no {key!r}: {nearest(key, config.to_dict())}")
            setattr(config, key, value)
    return AutoModel.from_pretrained(name, config=config) if pretrained else AutoModel.from_config(config)
