"""Features: written to files, and searched."""

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ownlatent.api.encoders import encoder_of
from ownlatent.errors import OwnlatentError, nearest
from ownlatent.log import to_console
from ownlatent.recipes.begin import apart
from ownlatent.run import Run, lies_among
from ownlatent.train.ranges import check
from ownlatent.train.recipe import Recipe, coerce, edit
from ownlatent.types import NOUNS

if TYPE_CHECKING:
    from torch import nn

    from ownlatent.backbones import OwnNetwork
    from ownlatent.backbones.encoder import Encoder
    from ownlatent.data.source import Source
    from ownlatent.features.search import Neighbour

log = logging.getLogger("ownlatent")
ENGINES = ("exact", "faiss")


def embed(
    encoder: "str | Path | Run | Encoder",
    data: Any,
    *,
    out: str | Path,
    layer: str | None = None,
    normalise: bool = False,
    dtype: str = "float32",
    batch_size: int = 256,
    overwrite: bool = False,
    network: "str | nn.Module | OwnNetwork | None" = None,
    **options: Any,
) -> Path:
    """Write the features of all images of `data` to a file: .parquet, .npz, .csv or .h5, by its ending.

    encoder: a run, its folder or any with encoder.json and encoder.safetensors, or an Encoder; network: where it is
    of your own, a fresh module, which stays as it is, or FILE.py:NAME. data: as `pretrain` takes them. layer: take the
    features from this layer of the network. normalise: to unit length. dtype: of the features in the file, float32 or
    float16. overwrite: replace what is there. options: accelerator, data_root and download, as for `pretrain`.

    Memory does not grow with the number of images. A call that is stopped goes on when it is repeated. Returns the
    path of the file; `row` in it is the number of the image in the data. Raises OwnlatentError for anything that is
    wrong with the input.
    """
    path, batch_size = Path(out), coerce(batch_size, int, "batch_size")
    if batch_size < 1:
        raise OwnlatentError(f"--batch-size must be at least 1, not {batch_size}")
    fields, _, objects = apart(data, None, {})
    recipe = _recipe({**fields, **options})
    if not recipe.data:
        raise OwnlatentError("name the images: ownlatent embed RUN DATA --out FILE")
    if lies_among(path, recipe.data):
        raise OwnlatentError(f"{path} would lie among the images: give another --out")
    with to_console(), _enough_memory(batch_size):
        from ownlatent.features.embedding import write_features
        from ownlatent.features.formats import format_of
        from ownlatent.features.network import DTYPES
        from ownlatent.features.partial import check_free
        from ownlatent.train.images import choose_device, say_progress

        if dtype not in DTYPES:
            raise OwnlatentError(f"--dtype is {' or '.join(DTYPES)}, not {dtype!r}")
        format_of(path)
        check_free(path, overwrite)
        made = encoder_of(encoder, network)
        source = _open(replace(recipe, modality=made.modality), objects.get("data", recipe.data))
        write_features(
            made,
            source,
            path,
            data=None if objects else recipe.data,
            layer=layer,
            normalise=normalise,
            dtype=dtype,
            batch_size=batch_size,
            overwrite=overwrite,
            device=choose_device(recipe.accelerator),
            progress=say_progress("embedded"),
        )
    return path


def search(
    encoder: "str | Path | Run | Encoder",
    queries: Any,
    *,
    index: str | Path,
    count: int = 10,
    out: str | Path | None = None,
    engine: str = "exact",
    overwrite: bool = False,
    data: Any = None,
    network: "str | nn.Module | OwnNetwork | None" = None,
    **options: Any,
) -> "list[list[Neighbour]]":
    """The images of an index that are nearest to each query by the cosine of their features.

    encoder, network: as for `embed`, and the same that made the index. queries: a path of an image file, or a list of
    paths, Pillow images, arrays or tensors. index: a file that `embed` wrote. count: how many are wanted. out: also
    draw the images there; data: where they are, if that has changed. engine: exact, or faiss, which keeps an index
    of its own beside the file and misses a few. options: accelerator, data_root and download.

    Returns for each query a list of Neighbours: similarity, row in the data, label and path. Raises OwnlatentError.
    """
    path, count = Path(index), coerce(count, int, "count")
    picture = None if out is None else Path(out)
    if count < 1:
        raise OwnlatentError(f"--count must be at least 1, not {count}")
    if engine not in ENGINES:
        raise OwnlatentError(f"there is no engine {engine!r}: {nearest(engine, ENGINES)}")
    if picture is not None and picture.exists() and not overwrite:
        raise OwnlatentError(f"{picture} is already there: replace it by --overwrite, or give another --out")
    recipe = _recipe(options)
    several = list(queries) if isinstance(queries, (list, tuple)) else [queries]
    if not several:
        raise OwnlatentError("name an image to search for: ownlatent search RUN --index FILE IMAGE")
    with to_console():
        from ownlatent.features import search as exact
        from ownlatent.features.formats import read
        from ownlatent.train.images import choose_device

        table, made = read(path), encoder_of(encoder, network)
        exact.check_made_by(made, table, path)
        names, images = zip(*(exact.read_query(query, made.modality) for query in several), strict=True)
        device = choose_device(recipe.accelerator)
        vectors = exact.directions(made, images, names, table.about["layer"], device)
        if engine == "exact":
            found = exact.nearest(table, vectors, count)
        else:
            from ownlatent.features import approximate

            found = approximate.nearest(path, table, vectors, count)
        if picture is not None:
            fields, _, objects = apart(data if data is not None else table.about["data"], None, {})
            recipe = edit(replace(recipe, modality=made.modality), fields)
            _draw(picture, table, recipe, objects.get("data", recipe.data), made, names, images, found)
    return found


def _draw(
    out: Path,
    table: Any,
    recipe: Recipe,
    data: Any,
    encoder: "Encoder",
    names: Sequence[str],
    images: Sequence[Any],
    found: "Sequence[Sequence[Neighbour]]",
) -> None:
    """The queries and what was found, if the images are still there. Raises OwnlatentError if it cannot be written."""
    from ownlatent.data.decode import Unreadable
    from ownlatent.features.search import check_same
    from ownlatent.reporting.neighbours import as_picture, draw_neighbours
    from ownlatent.sound.front_end import as_seen
    from ownlatent.train.images import open_data

    def shown(image: Any, *captions: str) -> Any:
        if encoder.modality == "audio":
            return as_seen(image[0].numpy() / 65535), *captions
        return as_picture(image.numpy(), encoder.scale_of(image.dtype)), *captions

    try:
        if isinstance(data, str) and not data:
            raise OwnlatentError(f"{table.about['name']} was given by a program, and not by name")
        source = open_data(recipe, data)
        check_same(source, table, found)
        rows = [
            [
                shown(image, "query", name),
                *(shown(source[n.row].image, f"{n.similarity:.3f}  {n.label or ''}", n.path) for n in some),
            ]
            for name, image, some in zip(names, images, found, strict=True)
        ]
    except (OwnlatentError, Unreadable) as error:
        log.warning("no picture because the images cannot be found again: %s", error)
        return
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        draw_neighbours(rows, out)
    except OSError as error:
        raise OwnlatentError(f"cannot write {out} ({error.strerror}): give another --out") from error
    except ValueError as error:  # matplotlib's answer to an ending that it does not know
        raise OwnlatentError(f"{out} is no picture that can be written ({error}): end --out in .png") from error
    log.info("wrote      %s", out)


def _recipe(fields: dict[str, Any]) -> Recipe:
    """Where and with what: the data, the device, the folder of data sets. Raises OwnlatentError."""
    known = ("data", "accelerator", "data_root", "download")
    for name in fields:
        if name not in known:
            raise OwnlatentError(f"there is no option {name!r}: {nearest(name, known[1:])}")
    recipe = edit(Recipe(), fields)
    check(recipe)
    return recipe


def _open(recipe: Recipe, data: Any) -> "Source":
    """The images, with labels where there are some. Raises OwnlatentError."""
    from ownlatent.train.images import open_data

    try:
        source = open_data(recipe, data, labelled=True)
    except OwnlatentError as error:
        source = open_data(recipe, data)
        log.info("labels     none: %s", error)
    log.info("data       %s: %d %s", source.name, len(source), NOUNS[recipe.modality])
    return source


@contextmanager
def _enough_memory(batch_size: int) -> Iterator[None]:
    """What torch says when a GPU's memory is full becomes one sentence."""
    import torch

    try:
        yield
    except torch.OutOfMemoryError as error:
        raise OwnlatentError(
            f"the device has too little memory for {batch_size} images at once: give a smaller --batch-size"
        ) from error
