"""Reads and writes row scores: what an evaluation measured, row by row, before any mean is taken.

They are a flat dictionary of numpy arrays, in the released order of the rows, kept beside the result file as
``NAME.rows.npz``; a :class:`Column` says of each array its dtype and length. :data:`DATA_COLUMNS` describe the rows, the
others belong to metrics (``registry.columns_of``). ``numpy.load(path, allow_pickle=False)`` reads the file. Texts are not
kept: identities are numbered in the sorted order of their ids over all splits, attributes and subsets as in
:data:`~salmu_jax.evaluation.data.FIELDS` and :data:`SUBSETS`, and -1 is none of them.
"""

from __future__ import annotations

import hashlib
import io
import os
import zipfile
import zlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np

from salmu_jax.evaluation.data import SPLITS
from salmu_jax.runtime.errors import InputError
from salmu_jax.runtime.files import write_bytes
from salmu_jax.runtime.messages import listed
from salmu_jax.runtime.opening import open_regular

TARGETS = ("forget", "holdout_association", "holdout_identity")  # splits whose images are queried
SUBSETS = (
    "forget_identity",
    "forget_association",
    "holdout_association",
    "holdout_identity",
    "retain_joint",
    "retain_disjoint",
)
POOL_SIZE = 1000  # distractors drawn from each of the two pools: a gallery of 2,001 with the own caption
SUFFIX = ".rows.npz"
MAX_BYTES = 1 << 28  # of all arrays together; the released sizes take 4 MB
MAX_ARRAYS = 1_000  # of a file; a metric has a handful

RowScores = dict[str, np.ndarray]
_EPOCH = (1980, 1, 1, 0, 0, 0)  # the earliest time that a zip file can hold: equal scores give equal bytes
_DAMAGE = (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, OSError, OverflowError)
_HEADER_BYTES = 4096  # of an .npy entry, at most


class Column(NamedTuple):
    """An array [N] of row scores: its dtype, what N counts (a key of :func:`lengths`), and where it comes from.

    ``shared``: from data and protocol alone, so it is equal in all results that are compared. ``cosine``: measured, from
    -1 to 1. ``share``: measured, from 0 to 1. ``measured``: from the model.
    """

    dtype: str
    length: str
    kind: Literal["shared", "cosine", "share", "measured"] = "measured"


DATA_COLUMNS: dict[str, Column] = {
    **{f"{split}.{name}": Column(dtype, split, "shared")
       for split in SPLITS
       for name, dtype in (("identity", "<i4"), ("data_field", "|i1"), ("subset", "|i1"))},
    "retain_synth.fragile": Column("|b1", "retain_synth", "shared"),
}  # fmt: skip


def by_identity(rows: Mapping[str, np.ndarray], split: str) -> np.ndarray:
    """Returns the cluster of each row of ``split``, int64 [N]: its identity's number; a row without one is its own cluster."""
    identity = rows[f"{split}.identity"].astype(np.int64)
    return np.where(identity < 0, -1 - np.arange(len(identity)), identity)


def lengths(protocol: Mapping[str, Any]) -> dict[str, int]:
    """Returns how long the columns of a result are, from its ``protocol``."""
    rows = protocol["rows"]
    return {
        **rows,
        **{f"gallery_{split}": min(POOL_SIZE, rows[split]) for split in TARGETS},
        "gallery_retain_synth": min(POOL_SIZE, rows["retain_disjoint"]),
        "images": protocol["genknow"]["images"],
        "relearn_rates": 3,
        "relearn_curves": 3 * 10 if protocol.get("probe_form") == "full" else 1 * 4,  # points of the curve of each rate
    }


def subset_rows(rows: Mapping[str, np.ndarray]) -> dict[str, int]:
    """Returns how many rows each subset has that a metric is measured on."""
    forget, retain = rows["forget.subset"], rows["retain_synth.subset"]
    counts = {name: int((forget == SUBSETS.index(name)).sum()) for name in ("forget_identity", "forget_association")}
    counts |= {name: int((retain == SUBSETS.index(name)).sum()) for name in ("retain_joint", "retain_disjoint")}
    return {**counts, "fragile_set": int(rows["retain_synth.fragile"].sum())}


def rows_path(result_path: str | os.PathLike) -> Path:
    """Returns where the row scores of a result file lie: ``results/NAME.rows.npz`` beside ``results/NAME.json``."""
    path = Path(result_path)
    return path.with_name(path.stem + SUFFIX)


def encode_rows(rows: Mapping[str, np.ndarray]) -> bytes:
    """Returns the bytes of the compressed file, the same for the same scores; arrays are written with the dtype they have."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED, compresslevel=6) as archive:
        for name, values in rows.items():
            entry = io.BytesIO()
            np.lib.format.write_array(entry, values, version=(1, 0), allow_pickle=False)
            info = zipfile.ZipInfo(f"{name}.npy", _EPOCH)
            info.compress_type = zipfile.ZIP_DEFLATED
            info.external_attr = 0o644 << 16
            archive.writestr(info, entry.getvalue())
    return buffer.getvalue()


def write_rows(path: str | os.PathLike, rows: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """Writes row scores atomically; returns what the result file says of them: ``{"file", "bytes", "sha256"}``."""
    data = encode_rows(rows)
    write_bytes(path, data)
    return describe_rows(Path(path).name, data)


def describe_rows(name: str, data: bytes) -> dict[str, Any]:
    """Returns the record of a side file in its result."""
    return {"file": name, "bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}


def read_rows(
    path: str | os.PathLike, protocol: Mapping[str, Any], columns: Mapping[str, Column], *, others: bool = False
) -> tuple[RowScores, dict[str, Any]]:
    """Reads row scores of exactly the arrays that are expected; returns them and the record of their file.

    Nothing is inflated beyond the size that the protocol allows, and nothing is unpickled.

    Args:
      path: of the file.
      protocol: says how long each array is.
      columns: the arrays.
      others: whether the file may hold further arrays, of metrics that this version does not know; they are not read.

    Raises:
      InputError: the file is missing or damaged, or an array is missing, unknown, of another dtype or length.
    """
    expected = lengths(protocol)
    whole = sum(np.dtype(column.dtype).itemsize * expected[column.length] for column in columns.values())
    if whole > MAX_BYTES:
        raise InputError(f"row scores of {whole:,} bytes; at most {MAX_BYTES:,} are read", path)
    most = MAX_BYTES if others else whole + _HEADER_BYTES * len(columns)
    try:
        with open_regular(path) as handle:
            size = os.fstat(handle.fileno()).st_size
            if size > most:
                raise InputError(f"{size:,} bytes; the row scores of this protocol take at most {most:,}", path)
            data = handle.read()
    except OSError as error:
        raise InputError(f"cannot be read ({error.strerror}); evaluate again", path) from error
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            _check_names(archive, columns, others, path)
            rows = {
                name: _read_entry(archive, name, np.dtype(column.dtype), expected[column.length], path)
                for name, column in columns.items()
            }
    except _DAMAGE as error:
        raise InputError(f"is damaged ({error}); evaluate again", path) from error
    return rows, describe_rows(Path(path).name, data)


def _check_names(
    archive: zipfile.ZipFile, columns: Mapping[str, Column], others: bool, path: str | os.PathLike
) -> None:
    """Raises InputError if the file holds an array twice, lacks one, or holds one that is not expected."""
    names = [info.filename for info in archive.infolist()]
    wanted = {f"{name}.npy" for name in columns}
    missing, strange = wanted - set(names), set() if others else set(names) - wanted

    def shown(arrays: Iterable[str]) -> str:
        return listed((ascii(name.removesuffix(".npy")[:60])[1:-1] for name in sorted(arrays)), 3)

    if len(names) > MAX_ARRAYS:
        raise InputError(f"holds {len(names):,} arrays; at most {MAX_ARRAYS:,} are read", path)
    if len(names) != len(set(names)):
        raise InputError(f"holds an array twice: {shown(name for name in set(names) if names.count(name) > 1)}", path)
    problems = [f"lacks the arrays {shown(missing)}"] if missing else []
    problems += [f"holds arrays that no metric of its result has: {shown(strange)}"] if strange else []
    if problems:
        raise InputError(f"{'; '.join(problems)}; evaluate again", path)


def _read_entry(
    archive: zipfile.ZipFile, name: str, dtype: np.dtype, count: int, path: str | os.PathLike
) -> np.ndarray:
    """Reads an array of one dtype and length. Raises InputError for any other."""
    with archive.open(f"{name}.npy") as entry:
        try:
            version = np.lib.format.read_magic(entry)
            if version != (1, 0):
                raise ValueError(f"version {version}")
            shape, _, found = np.lib.format.read_array_header_1_0(entry, max_header_size=_HEADER_BYTES)
        except _DAMAGE:
            raise
        except Exception as error:  # numpy parses headers as Python's text, and raises whatever that raises
            raise InputError(f"array {name!r} is no plain array of numbers ({type(error).__name__})", path) from error
        if found != dtype or shape != (count,):
            shown = f"{found.str if not found.hasobject else 'object'} {list(shape)}"
            raise InputError(f"array {name!r} is {shown[:60]}, not {dtype.str} [{count}]", path)
        values = entry.read(count * dtype.itemsize + 1)
    if len(values) != count * dtype.itemsize:
        raise InputError(f"array {name!r} does not end where its header says", path)
    return np.frombuffer(values, dtype)
