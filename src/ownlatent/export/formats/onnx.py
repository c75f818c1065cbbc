"""One file with network, weights and normalisation, images as floats in [0, 1] in, features out, for ONNX runtimes."""

import warnings
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ownlatent.backbones.encoder import Encoder
from ownlatent.errors import OwnlatentError
from ownlatent.export.formats import Written
from ownlatent.export.formats._examples import inputs
from ownlatent.export.formats._refusal import refusal
from ownlatent.export.formats._sizes import agrees, any_size_fact, other_sizes
from ownlatent.export.preprocessing import as_text, preprocessing

LIBRARY = "onnxruntime"
TOLERANCE = 1e-4


def write(encoder: Encoder, folder: Path) -> Written:
    try:
        import onnx
        import onnxruntime
        import onnxscript
    except ImportError as error:
        raise OwnlatentError(f"the format onnx needs {error.name}: pip install 'ownlatent[onnx]'") from None

    path, sizes, sounds = folder / "model.onnx", other_sizes(encoder), encoder.modality == "audio"
    usual = inputs(encoder, 3)
    for any_size in (True, False) if sizes else (False,):
        try:
            # A map of one place alone would be taken to be always so: images of another size are larger, if possible.
            program = _recorded(encoder, sizes[0] if any_size else usual[:2], any_size)
        except Exception as error:  # torch's exporter raises many kinds
            if any_size:
                continue
            reason = (str(error).strip() or type(error).__name__).splitlines()[0][:200]
            raise refusal(encoder, "onnx", f"torch cannot write it ({reason})") from error
        program.model.metadata_props.update(as_text(preprocessing(encoder)))
        program.save(path, external_data=False)
        if all(agrees(_run(path), images, encoder, TOLERANCE) for images in (usual, *(sizes if any_size else ()))):
            break
    else:
        raise refusal(encoder, "onnx", "ONNX Runtime gives other features for another number of images")
    versions = f"Written by torch {torch.__version__}, onnx {onnx.__version__} and onnxscript {onnxscript.__version__}"
    return Written(
        (
            "import onnxruntime",
            'session = onnxruntime.InferenceSession("FOLDER/model.onnx")',
            'features = session.run(None, {"sounds": sounds})[0]  # sounds: float32 array of 16 kHz, (B, samples)'
            if sounds
            else 'features = session.run(None, {"images": images})[0]  # images: float32 array in [0, 1], (B, C, H, W)',
        ),
        (
            "It normalises by itself.",
            any_size_fact(any_size, encoder.image_size),
            f"{versions}; tried with ONNX Runtime {onnxruntime.__version__}.",
        ),
        arrays=True,
        takes_sounds=True,
    )


def _recorded(encoder: Encoder, images: Tensor, any_size: bool) -> Any:
    """torch's ONNX program for any number of images, and for any size of them if so wanted."""
    sounds = encoder.modality == "audio"
    sizes = {1: "samples"} if sounds else {2: "height", 3: "width"}
    dynamic = {0: "batch", **sizes} if any_size else {0: "batch"}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.onnx.export(
            encoder,
            (images,),
            input_names=["sounds" if sounds else "images"],
            output_names=["features"],
            dynamic_shapes=(dynamic,),
            dynamo=True,
            verbose=False,
        )


def _run(path: Path) -> Any:
    """The file as a function of images, by ONNX Runtime."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors only
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])

    def features(images: Tensor) -> Tensor:
        return torch.from_numpy(session.run(None, {session.get_inputs()[0].name: images.contiguous().numpy()})[0])

    return features
