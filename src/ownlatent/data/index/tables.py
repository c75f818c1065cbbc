"""Columns of Parquet and Arrow files as Arrow arrays: read, or mapped where they are larger than memory allows."""

import json
import logging
import multiprocessing
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from ownlatent.data.index.cache import cache_folder, key_of, replacing
from ownlatent.data.reasons import brief
from ownlatent.errors import OwnlatentError
from ownlatent.machine import memory

log = logging.getLogger("ownlatent")

_MOST_EACH = 256 << 20  # bytes of images that each worker process may read for itself
_LAYOUT = 1  # of the copies in the cache folder; grows with every change


def describe(path: Path) -> tuple[Any, int]:
    """The schema of a table and the number of its rows, without reading it. Raises OwnlatentError."""
    pa = _pyarrow()
    try:
        if path.suffix == ".arrow":
            table = _map(path)
            return table.schema, table.num_rows
        metadata = pa.parquet.read_metadata(path)
        return metadata.schema.to_arrow_schema(), metadata.num_rows
    except (pa.ArrowException, OSError) as error:
        raise _damaged(path, error) from error


def column_of(path: Path, name: str) -> Iterator[Any]:
    """A column as arrays, one after the other; of a .arrow file they are views of it. Raises OwnlatentError."""
    pa = _pyarrow()
    try:
        if path.suffix == ".arrow":
            yield from _map(path)[name].chunks
            return
        with pa.parquet.ParquetFile(path) as file:
            # One group of rows at a time: together their bytes may be more than one array of structs can hold.
            for number in range(file.num_row_groups):
                yield from file.read_row_group(number, columns=[name])[name].chunks
    except (pa.ArrowException, OSError) as error:
        raise _damaged(path, error) from error


def split_images(images: Any) -> tuple[Any, Any]:
    """An array of images as their bytes and their paths, or None for the paths where there are none."""
    pa = _pyarrow()
    if not pa.types.is_struct(images.type):
        return images, None
    names = [images.type.field(number).name for number in range(images.type.num_fields)]
    parts = dict(zip(names, images.flatten(), strict=True))  # a row without a struct has no bytes either
    return parts["bytes"], parts.get("path")


def is_image(type: Any) -> bool:
    """Whether values of an Arrow type can be image files: bytes, or a struct with `bytes`."""
    pa = _pyarrow()
    if pa.types.is_struct(type):
        index = type.get_field_index("bytes")
        return index >= 0 and is_image(type.field(index).type)
    return pa.types.is_binary(type) or pa.types.is_large_binary(type) or pa.types.is_binary_view(type)


def as_values(array: Any, what: str) -> list[int | str | None]:
    """An array of labels as a list. Raises OwnlatentError if they are neither whole numbers nor words."""
    pa = _pyarrow()
    if pa.types.is_dictionary(array.type):
        array = array.dictionary_decode()
    simple = (pa.types.is_integer, pa.types.is_boolean, pa.types.is_string, pa.types.is_large_string, pa.types.is_null)
    if not any(test(array.type) for test in simple):
        raise OwnlatentError(f"{what} holds {array.type} and no classes: give whole numbers or words")
    return array.to_pylist()


def mappable_copy(paths: Sequence[Path], column: str, name: str) -> Path | None:
    """Where a copy of a column of images lies that can be mapped, made if need be; None if it fits in memory.

    name: of the source, for messages. Raises OwnlatentError.
    """
    size = sum(_size(path, column) for path in paths if path.suffix != ".arrow")
    if size <= _most_in_memory():
        return None
    folder = cache_folder()
    if folder is None:
        raise OwnlatentError(f"{name} is too large for the memory: set OWNLATENT_CACHE to a folder for a copy")
    copy = folder / "tables" / f"{key_of([str(path) for path in paths], column, _LAYOUT)}.arrow"
    pa = _pyarrow()
    try:
        _map(copy)
        return copy
    except (pa.ArrowException, OSError):
        pass  # there is none yet, or it is damaged
    try:
        copy.parent.mkdir(parents=True, exist_ok=True)
        if shutil.disk_usage(copy.parent).free < size:
            raise OSError("too little space")
        log.info("copying    the images of %s to %s (%.1f GB), which is done once", name, copy, size / 1e9)
        _write_copy(copy, paths, column)
    except OSError as error:
        raise OwnlatentError(
            f"{name} is too large for the memory and cannot be copied to {copy.parent} "
            f"({brief(error)}): set OWNLATENT_CACHE to a folder with {size / 1e9:.1f} GB"
        ) from error
    return copy


def _most_in_memory() -> int:
    """Bytes of images that may be read: forked worker processes share them, all others read them anew."""
    # Asked with allow_none, because without it the answer would be fixed for the whole program.
    method = multiprocessing.get_start_method(allow_none=True) or multiprocessing.get_all_start_methods()[0]
    return memory() // 8 if method == "fork" else min(memory() // 64, _MOST_EACH)


def _write_copy(copy: Path, paths: Sequence[Path], column: str) -> None:
    pa = _pyarrow()
    image = pa.struct([("bytes", pa.large_binary()), ("path", pa.string())])
    with replacing(copy) as file, pa.ipc.new_file(file, pa.schema([(column, image)])) as writer:
        for path in paths:
            for chunk in column_of(path, column):
                data, names = split_images(chunk)
                names = pa.nulls(len(data), pa.string()) if names is None else names.cast(pa.string())
                rows = pa.StructArray.from_arrays([data.cast(pa.large_binary()), names], fields=list(image))
                writer.write_batch(pa.record_batch([rows], names=[column]))


def saved_tables(folder: Path) -> list[Path] | None:
    """The .arrow files of a folder that Hugging Face's `save_to_disk` wrote, or None if it is no such folder.

    Of several parts, `train` is meant. Raises OwnlatentError if there is none of that name.
    """
    parts = _json(folder / "dataset_dict.json").get("splits")
    if parts:
        if "train" not in parts:
            raise OwnlatentError(f"{folder} has the parts {', '.join(parts)}: name one, as in {folder / parts[0]}")
        folder = folder / "train"
    files = _json(folder / "state.json").get("_data_files")
    return [folder / file["filename"] for file in files] if files else None


def _json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def _size(path: Path, column: str) -> int:
    """Bytes of a column of a Parquet file once it is read."""
    pa = _pyarrow()
    metadata = pa.parquet.read_metadata(path)
    leaves = [
        metadata.row_group(g).column(c) for g in range(metadata.num_row_groups) for c in range(metadata.num_columns)
    ]
    wanted = (column, f"{column}.bytes")
    return sum(leaf.total_uncompressed_size for leaf in leaves if leaf.path_in_schema in wanted)


def _map(path: Path) -> Any:
    """A .arrow file of either kind as a table that takes no memory. Raises ArrowException and OSError."""
    pa = _pyarrow()
    with open(path, "rb") as file:
        as_file = file.read(6) == b"ARROW1"
    mapped = pa.memory_map(str(path))
    return (pa.ipc.open_file(mapped) if as_file else pa.ipc.open_stream(mapped)).read_all()


def _damaged(path: Path, error: Exception) -> OwnlatentError:
    return OwnlatentError(f"{path} cannot be read ({brief(error)}): is the file complete?")


def _pyarrow() -> Any:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        raise OwnlatentError("images in tables need one more package: pip install pyarrow") from None
    return pyarrow
