"""What this installation can do: every part is tried, not only looked for."""

import importlib
import io
import os
import platform
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

from ownlatent import __version__
from ownlatent.checks.finding import BROKEN, GOOD, LACKING, Finding
from ownlatent.machine import cores, memory

_GIB = 2**30
_EXTRAS = {
    "pyarrow": ("parquet", "Parquet tables"),
    "datasets": ("huggingface", "data sets of Hugging Face"),
    "sklearn": ("sklearn", "the transformer for scikit-learn"),
    "onnxruntime": ("onnx", "exports to ONNX"),
    "transformers": ("transformers", "exports to Hugging Face"),
    "h5py": ("hdf5", "features in HDF5 files"),
    "faiss": ("faiss", "searches among millions of features"),
    "soundfile": ("audio", "sound files"),
    "soxr": ("audio", "sounds of other rates than 16 kHz"),
}
_FORMATS = ("JPEG", "PNG", "TIFF", "WEBP", "GIF", "BMP", "PPM", "JPEG2000", "AVIF")


def examine() -> Iterator[Finding]:
    """One finding after the other, the slow ones last; nothing is written but for a trial file in the cache folder."""
    yield Finding("ownlatent", GOOD, f"{__version__}, Python {platform.python_version()}, {platform.platform()}")
    yield Finding("machine", GOOD, f"{cores()} cores, {memory() / _GIB:.1f} GiB of memory")
    yield _disk()
    yield _shared_memory()
    yield _cache()
    for part, trial in (("torch", _torch), ("devices", _devices), ("engine", _engine), ("views", _views)):
        yield _tried(part, trial)
    yield from _decoders()
    yield from _extras()


def _tried(part: str, trial: Callable[[], str]) -> Finding:
    try:
        return Finding(part, GOOD, trial())
    except Exception as error:  # whatever a broken installation raises is the finding
        return Finding(part, BROKEN, f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}")


def _torch() -> str:
    import torch
    import torchvision

    boxes = torch.tensor([[0.0, 0.0, 1.0, 1.0]])
    torchvision.ops.nms(boxes, torch.ones(1), 0.5)  # fails where the two were not built for each other
    return f"torch {torch.__version__}, torchvision {torchvision.__version__}"


def _devices() -> str:
    import torch

    found = [f"cpu with {torch.get_num_threads()} threads ({torch.backends.cpu.get_cpu_capability()})"]
    for number in range(torch.cuda.device_count()):
        about = torch.cuda.get_device_properties(number)
        torch.ones(2, device=f"cuda:{number}").sum().item()
        found.append(f"cuda:{number} {about.name} with {about.total_memory / _GIB:.0f} GiB")
    if torch.backends.mps.is_available():
        found.append("mps")
    return ", ".join(found)


def _engine() -> str:
    return ", ".join(f"{name} {importlib.import_module(name).__version__}" for name in ("lightning", "timm"))


def _views() -> str:
    import torch

    from ownlatent.augment.recipes import RECIPES
    from ownlatent.augment.views import MultiView

    make = MultiView(RECIPES["byol_small"], 32, (0.5,) * 3, (0.25,) * 3)
    make.of_images(torch.zeros(2, 3, 32, 32, dtype=torch.uint8), torch.Generator().manual_seed(0))
    return "the compiled loops run"


def _disk() -> Finding:
    free = shutil.disk_usage(Path.cwd()).free / _GIB
    state = GOOD if free > 1 else LACKING
    return Finding("disk", state, f"{free:.1f} GiB free here" + ("" if state == GOOD else ": checkpoints may not fit"))


def _shared_memory() -> Finding:
    place = Path("/dev/shm")
    if not place.exists():
        return Finding("shared", GOOD, "worker processes share memory in files")
    size = shutil.disk_usage(place).total / _GIB
    if size < 0.5:
        text = f"{size:.2f} GiB in {place}, too little for worker processes: in Docker give --shm-size 2g"
        return Finding("shared", LACKING, text)
    return Finding("shared", GOOD, f"{size:.1f} GiB in {place} for worker processes")


def _cache() -> Finding:
    from ownlatent.data.index.cache import cache_folder, replacing

    folder = cache_folder()
    if folder is None:
        return Finding("cache", LACKING, "no home folder: set OWNLATENT_CACHE to a folder that may be written")
    trial = folder / f"trial-{os.getpid()}"
    try:
        with replacing(trial) as file:
            file.write(b"ownlatent")
        trial.unlink()
    except OSError as error:
        text = f"{folder} cannot be written ({error.strerror}): set OWNLATENT_CACHE to a folder that can"
        return Finding("cache", LACKING, text)
    return Finding("cache", GOOD, str(folder))


def _decoders() -> Iterator[Finding]:
    """Each format is written by Pillow and read by the decoder that training uses."""
    import numpy as np
    from PIL import Image

    from ownlatent.data.decode import Format, decode

    good, lacking = [], []
    picture = Image.fromarray(np.zeros((8, 8, 3), np.uint8))
    for name in _FORMATS:
        content = io.BytesIO()
        try:
            picture.save(content, name)
            decode(content.getvalue(), Format(3, 8))
            good.append(name)
        except Exception as error:
            lacking.append(f"{name} ({type(error).__name__})")
    yield Finding("formats", GOOD if good else BROKEN, ", ".join(good) or "none can be read")
    if lacking:
        yield Finding("formats", LACKING, ", ".join(lacking) + ": another build of Pillow would read them")


def _extras() -> Iterator[Finding]:
    for module, (extra, what) in _EXTRAS.items():
        try:
            version = importlib.import_module(module).__version__
            yield Finding("extra", GOOD, f"{module} {version} for {what}")
        except ImportError:
            yield Finding("extra", LACKING, f"{what} need one more package: pip install 'ownlatent[{extra}]'")
