"""The nearest among millions of features by FAISS: nearly always the true ones, without looking at all of them."""

import glob
import hashlib
import json
import logging
import os
from pathlib import Path
from typing import Any

import numpy as np

from ownlatent.data.reasons import brief
from ownlatent.errors import OwnlatentError
from ownlatent.features.search import Neighbour, unit
from ownlatent.features.table import Table

log = logging.getLogger("ownlatent")
_FEW = 10_000  # features, up to which all are looked at
_PER_CELL = 40  # features from which the centre of a cell is learnt; FAISS wants 39
_MOST_CELLS = 4096
_VISITED = 16  # one cell in so many is looked into


def nearest(path: Path, table: Table, queries: np.ndarray, count: int) -> list[list[Neighbour]]:
    """As `search.nearest`, of the table in the file `path`, beside which the index is kept. Raises OwnlatentError."""
    index = _index(path, table)
    similarities, places = index.search(np.ascontiguousarray(queries), min(count, len(table)))
    wanted = {int(place) for place in places.ravel() if place >= 0}  # -1 where too few were looked at
    known = {}
    first = 0
    for chunk in table.chunks(features=False):
        for place in wanted.intersection(range(first, first + len(chunk.rows))):
            i = place - first
            known[place] = chunk.rows[i], chunk.labels[i], chunk.paths[i]
        first += len(chunk.rows)
    return [
        [Neighbour(float(s), *known[int(place)]) for s, place in zip(*pair, strict=True) if place >= 0]
        for pair in zip(similarities, places, strict=True)
    ]


def _index(path: Path, table: Table) -> Any:
    """The index of these very features: kept, or made and kept."""
    faiss = _faiss()
    status = path.stat()
    facts = json.dumps([status.st_size, status.st_mtime_ns, _VISITED, dict(table.about)], sort_keys=True)
    place = path.with_name(f"{path.name}.{hashlib.blake2b(facts.encode(), digest_size=6).hexdigest()}.faiss")
    if place.exists():
        try:
            return faiss.read_index(str(place), faiss.IO_FLAG_MMAP)
        except RuntimeError:
            log.warning("index      %s is damaged and is made again", place)
    log.info("index      of %d features, which is made once", len(table))
    index = _made(faiss, table)
    beside = place.with_name(place.name + ".tmp")
    try:
        faiss.write_index(index, str(beside))
        os.replace(beside, place)
    except (RuntimeError, OSError) as error:
        beside.unlink(missing_ok=True)
        log.warning("index      cannot be kept beside %s (%s)", path, brief(error))
        return index
    for old in path.parent.glob(f"{glob.escape(path.name)}.*.faiss"):  # of features that are no more
        if old != place:
            old.unlink(missing_ok=True)
    return index


def _made(faiss: Any, table: Table) -> Any:
    """Cells around learnt centres, with the features in 16 bits; of few features all as they are."""
    dimensions, count = table.about["dimensions"], len(table)
    if count <= _FEW:
        index = faiss.IndexFlatIP(dimensions)
    else:
        cells = min(_MOST_CELLS, int(4 * count**0.5), count // _PER_CELL)
        index = faiss.index_factory(dimensions, f"IVF{cells},SQfp16", faiss.METRIC_INNER_PRODUCT)
        index.nprobe = -(-cells // _VISITED)
        index.train(_sample(table, _PER_CELL * cells))
    for chunk in table.chunks():
        index.add(unit(chunk.features))
    return index


def _sample(table: Table, count: int) -> np.ndarray:
    """About `count` of the features, spread evenly over all."""
    step = max(1, len(table) // count)
    parts, first = [], 0
    for chunk in table.chunks():
        parts.append(unit(chunk.features[-first % step :: step]))
        first += len(chunk.rows)
    return np.concatenate(parts)


def _faiss() -> Any:
    try:
        import faiss
    except ImportError:
        raise OwnlatentError("--engine faiss needs one more package: pip install 'ownlatent[faiss]'") from None
    return faiss
