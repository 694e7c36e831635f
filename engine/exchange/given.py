"""Embeddings made elsewhere, whatever form they have: told by their name, read as blocks of rows with their entries."""

from collections.abc import Iterator
from pathlib import Path

from xmr.engine.errors import UsageError, XmrError
from xmr.engine.exchange import faiss_index, fvecs, hdf5
from xmr.engine.exchange.npy import read_npy
from xmr.engine.exchange.npy_folder import is_npy_folder, read_npy_folder
from xmr.engine.exchange.rows import Block
from xmr.engine.exchange.vector_table import read_parquet

FORMS = "an .npy, .parquet, .fvecs, .hdf5 or faiss .index file, or a folder that `xmr export-index` wrote"
LISTED = {".npy", fvecs.SUFFIX, *faiss_index.SUFFIXES}  # whose rows a list can tell of


def read_blocks(
    path: Path,
    *,
    listed: Path | None = None,
    vector_column: str | None = None,
    dim: int | None = None,
    modality: str | None = None,
    normalize: bool = False,
) -> Iterator[Block]:
    """The rows of a file or folder in blocks, unit length; see the module of each form for what it reads.

    `listed` says what the rows of an .npy, .fvecs or faiss file are, `vector_column` is that of a parquet table,
    `modality` is that of rows of which nothing else tells it, `dim` the numbers a row must have. XmrError for what is
    none of these forms, or is not what it claims.
    """
    path = _file_in(path)
    form = path.suffix.lower()
    if listed is not None and (path.is_dir() or form not in LISTED):
        raise UsageError(f"--list {listed}: {path} has a list of its own; leave --list out")
    if vector_column is not None and (path.is_dir() or form != ".parquet"):
        raise UsageError(f"--vector-column {vector_column}: {path} has no columns; leave --vector-column out")
    if path.is_dir():
        return read_npy_folder(path, dim=dim, modality=modality, normalize=normalize)
    if form == ".parquet":
        return read_parquet(path, vector_column=vector_column, dim=dim, modality=modality, normalize=normalize)
    if form in hdf5.SUFFIXES:
        hdf5.check_h5py()
        return hdf5.read_hdf5(path, dim=dim, modality=modality, normalize=normalize)
    read = {".npy": read_npy, fvecs.SUFFIX: fvecs.read_fvecs}.get(form, faiss_index.read_faiss)
    return read(path, listed=listed, dim=dim, modality=modality, normalize=normalize)


def _file_in(path: Path) -> Path:
    """Where the rows stand: the file itself, or in a folder the one file that we write there; a folder of matrices."""
    if path.is_dir():
        for name in (faiss_index.INDEX_NAME, fvecs.ROWS_NAME):
            if (path / name).is_file():
                return path / name
        if not is_npy_folder(path):
            raise XmrError(f"{path}: no rows found in this folder; give {FORMS}")
        return path
    if not path.exists():
        raise XmrError(f"{path}: no such file; check the path")
    if not path.is_file() or path.suffix.lower() not in {".parquet", *hdf5.SUFFIXES, *LISTED}:
        raise XmrError(f"{path}: rows of no known form; give {FORMS}")
    return path
