"""The rows of an index, written for other programs: FORMATS is the table of how. A new one is a file here and a line.

What is written is whole or not there at all, and the same rows give the same bytes.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from xmr.engine.errors import UsageError, XmrError
from xmr.engine.exchange import hdf5
from xmr.engine.exchange.faiss_index import write_faiss
from xmr.engine.exchange.fvecs import write_fvecs
from xmr.engine.exchange.npy_folder import write_npy_folder
from xmr.engine.exchange.output import check_file, check_folder, whole
from xmr.engine.exchange.parquet import write_parquet
from xmr.engine.exchange.rows import Block
from xmr.engine.exchange.survey import Blocks, Progress, Survey, as_surveyed, survey

DTYPES = ("float32", "float16")
ROWS_PER_FILE = 1_000_000  # as clip-retrieval's inference writes them


@dataclass(frozen=True)
class Form:
    """How rows are written; what is None belongs to other formats."""

    format: str = "npy"  # a key of FORMATS
    dtype: str | None = None  # of npy: float32 or float16
    rows_per_file: int | None = None  # of npy
    queries: Path | None = None  # of hdf5: an .npy file of those to ask with
    n_queries: int | None = None  # of hdf5: rows to hold out as queries


@dataclass(frozen=True)
class Exported:
    """What was written."""

    out: str
    format: str
    dim: int
    n_items: dict[str, int]  # by modality
    n_files: int
    n_bytes: int


def export(
    blocks: Blocks,
    out: Path,
    form: Form,
    *,
    overwrite: bool = False,
    progress: Progress = lambda done, total: None,
) -> Exported:
    """Write all rows to a new file or folder: a folder of npy, faiss and fvecs, a file of parquet and hdf5.

    `blocks` is called twice, to look at the rows and to write them; XmrError where the index changed between, where
    there are no rows, something is in the way, or a package is missing. `progress` counts rows, of hdf5 then
    those that were searched for the queries.
    """
    check(out, form, overwrite=overwrite)
    found = survey(blocks())
    if not found.n_all:
        raise XmrError(f"{out}: not written, there is nothing to export; index something, or change --to and --where")
    write = FORMATS[form.format]
    with whole(out) as unborn:
        write(as_surveyed(blocks, found, progress), found, unborn, form, progress)
    files = [path for path in out.rglob("*") if path.is_file()] if out.is_dir() else [out]
    n_bytes = sum(path.stat().st_size for path in files)
    return Exported(str(out), form.format, found.dim, dict(sorted(found.n_rows.items())), len(files), n_bytes)


def check(out: Path, form: Form, *, overwrite: bool) -> None:
    """Refuse before any work what could not be written in the end."""
    if form.format not in FORMATS:
        raise UsageError(f"--format {form.format} is unknown; one of {', '.join(FORMATS)}")
    if form.dtype not in (None, *DTYPES):
        raise UsageError(f"--dtype {form.dtype} is unknown; one of {', '.join(DTYPES)}")
    for option in OPTIONS_OF:
        if getattr(form, option) is not None and OPTIONS_OF[option] != form.format:
            flag = option.replace("_", "-")
            raise UsageError(f"--{flag} belongs to --format {OPTIONS_OF[option]}, not to {form.format}; leave it out")
    if form.queries is not None and form.n_queries is not None:
        raise UsageError("--queries and --n-queries given; queries are either of a file or held out, choose one")
    if form.format in ("npy", "parquet") and find_spec("pyarrow") is None:
        raise XmrError(f"--format {form.format}: pyarrow is not installed; pip install pyarrow, or choose fvecs")
    if form.format == "hdf5":
        hdf5.check_h5py()
    if form.format in FILES:
        check_file(out, FILES[form.format], overwrite=overwrite)
    else:
        check_folder(out, overwrite=overwrite)


def _npy(blocks: Iterable[Block], found: Survey, out: Path, form: Form, _: Progress) -> None:
    write_npy_folder(
        blocks, found, out, dtype=form.dtype or "float32", rows_per_file=form.rows_per_file or ROWS_PER_FILE
    )


def _parquet(blocks: Iterable[Block], found: Survey, out: Path, *_: object) -> None:
    write_parquet(blocks, found, out)


def _faiss(blocks: Iterable[Block], found: Survey, out: Path, *_: object) -> None:
    write_faiss(blocks, found, out)


def _fvecs(blocks: Iterable[Block], found: Survey, out: Path, *_: object) -> None:
    write_fvecs(blocks, found, out)


def _hdf5(blocks: Iterable[Block], found: Survey, out: Path, form: Form, progress: Progress) -> None:
    queries = None if form.queries is None else hdf5.read_queries(form.queries, found.dim)
    hdf5.write_hdf5(blocks, found, out, queries=queries, n_queries=form.n_queries, progress=progress)


OPTIONS_OF = {"dtype": "npy", "rows_per_file": "npy", "queries": "hdf5", "n_queries": "hdf5"}
FILES = {"parquet": (".parquet",), "hdf5": hdf5.SUFFIXES}  # the formats that are one file, with their suffixes
FORMATS: dict[str, Callable[[Iterable[Block], Survey, Path, Form, Progress], None]] = {
    "npy": _npy,
    "parquet": _parquet,
    "faiss": _faiss,
    "fvecs": _fvecs,
    "hdf5": _hdf5,
}
