"""Parquet, for pandas, Polars, DuckDB and the like: columns row, path, label and features, lists of one length."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ownlatent.data.reasons import brief
from ownlatent.errors import OwnlatentError
from ownlatent.features.formats import parsed, unfit
from ownlatent.features.table import Chunk, Table

_KEY = b"ownlatent"


def check() -> None:
    _pyarrow()


def write(path: Path, table: Table) -> None:
    """One group of rows for each chunk; what is said about the features stands in the schema's metadata."""
    pa = _pyarrow()
    dimensions = table.about["dimensions"]
    vector = pa.list_(pa.from_numpy_dtype(np.dtype(table.about["dtype"])), dimensions)
    columns = {"row": pa.int64(), "path": pa.string(), "label": pa.string(), "features": vector}
    schema = pa.schema(columns.items(), metadata={_KEY: json.dumps(table.about)})
    # Features do not become smaller, only slower.
    few = {"compression": {"path": "snappy", "label": "snappy"}, "use_dictionary": ["label"]}
    with pa.parquet.ParquetWriter(str(path), schema, **few) as writer:
        for chunk in table.chunks():
            values = [
                pa.array(chunk.rows, pa.int64()),
                pa.array(chunk.paths, pa.string()),
                pa.array(chunk.labels, pa.string()),
                pa.FixedSizeListArray.from_arrays(pa.array(chunk.features.ravel()), dimensions),
            ]
            writer.write_batch(pa.record_batch(values, schema=schema), row_group_size=max(1, len(chunk.rows)))


def read(path: Path) -> "_Parquet":
    pa = _pyarrow()
    try:
        metadata = pa.parquet.read_metadata(path)
        schema = metadata.schema.to_arrow_schema()
    except (pa.ArrowException, OSError) as error:
        raise unfit(path, brief(error)) from error
    return _Parquet(path, parsed((schema.metadata or {}).get(_KEY), path), metadata.num_rows)


class _Parquet:
    def __init__(self, path: Path, about: Mapping[str, Any], rows: int):
        self.path, self.about, self._rows = path, about, rows

    def __len__(self) -> int:
        return self._rows

    def chunks(self, features: bool = True) -> Iterator[Chunk]:
        pa = _pyarrow()
        wanted = ["row", "path", "label", *(["features"] if features else [])]
        try:
            with pa.parquet.ParquetFile(self.path) as file:
                for group in range(file.num_row_groups):
                    for batch in file.read_row_group(group, columns=wanted).to_batches():
                        yield self._chunk(batch, features)
        except (pa.ArrowException, OSError, KeyError) as error:
            raise unfit(self.path, brief(error)) from error

    def _chunk(self, batch: Any, features: bool) -> Chunk:
        found = np.zeros((len(batch), 0), self.about["dtype"])
        if features:
            flat = batch.column("features").flatten().to_numpy(zero_copy_only=False)
            found = flat.reshape(len(batch), self.about["dimensions"])
        rows, paths, labels = (batch.column(name).to_pylist() for name in ("row", "path", "label"))
        return Chunk(rows, paths, labels, found)


def _pyarrow() -> Any:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        raise OwnlatentError("Parquet files need one more package: pip install 'ownlatent[parquet]'") from None
    return pyarrow
