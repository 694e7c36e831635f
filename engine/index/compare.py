"""A scan beside what the index holds: which files are new, changed, renamed, or not there any more."""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path

from xmr.engine.catalog import Catalog, File
from xmr.engine.corpus import CorpusFile, Scan
from xmr.engine.index.writer import AddSummary, catalog_file


def compare(
    catalog: Catalog, corpus: Scan, summary: AddSummary, *, prune: bool, whole: bool = False
) -> list[CorpusFile]:
    """Bring the catalog up to date as far as that needs no embedding, and count; the files that are to be embedded.

    `whole`: among them those of which items were deleted.
    """
    known, missing = catalog.files(), catalog.missing()
    thinned = catalog.thinned() if whole else set()
    fresh: list[CorpusFile] = []
    with catalog.transaction():
        for file in corpus.files:
            path = str(file.path)
            if path not in thinned and _is_held(catalog, known.get(path), file, is_missing=path in missing):
                summary.n_unchanged += 1
            else:
                fresh.append(file)
        vanished = _vanished(catalog, known, corpus)
        renamed = _renamed(fresh, corpus, {path: file for path, file in known.items() if path not in thinned})
        for old, file in renamed.items():
            if str(file.path) in known:  # it took the place of another one
                catalog.forget(str(file.path))
            catalog.change(old, catalog_file(file, known[old].sha256))
        summary.n_renamed = len(renamed)
        gone = [path for path in vanished if path not in renamed]
        for path in gone if prune else [path for path in gone if path not in known]:  # of the latter none is left
            catalog.forget(path)
        summary.n_removed = len(gone) if prune else 0
        summary.n_missing = 0 if prune else sum(path in known for path in gone)
        catalog.set_missing([] if prune else gone)
    moved = {file.path for file in renamed.values()}
    return [file for file in fresh if file.path not in moved]


def _is_held(catalog: Catalog, known: File | None, file: CorpusFile, *, is_missing: bool) -> bool:
    """Whether the index has the file as it is now; what was only touched or described anew is noted."""
    if known is None or known.size != file.size_bytes:
        return False
    now = catalog_file(file, known.sha256)
    if now == known and not is_missing:
        return True
    if known.mtime != now.mtime and _sha256(file) != known.sha256:
        return False
    catalog.change(known.path, now)
    return True


def _vanished(catalog: Catalog, known: Mapping[str, File], corpus: Scan) -> list[str]:
    """Paths that the index knows from the roots of this scan, and that are not in it any more.

    What could not be looked into this time, be it a folder or a manifest, tells nothing of what it held.
    """
    present = {str(file.path) for file in corpus.files}
    roots, hidden = ({str(path) for path in paths} for paths in (corpus.roots, corpus.unreadable))

    def has_vanished(path: str) -> bool:
        places = {path, *map(str, Path(path).parents)}
        if path in known and (root := known[path].root) is not None:
            places.add(root)
        return bool(places & roots) and not places & hidden

    return [path for path in sorted((known.keys() | catalog.skipped().keys()) - present) if has_vanished(path)]


def _renamed(fresh: Iterable[CorpusFile], corpus: Scan, known: Mapping[str, File]) -> dict[str, CorpusFile]:
    """Of known files that are not there any more, as which new one each is there, with the same content."""
    present = {str(file.path) for file in corpus.files}
    gone = [file for file in known.values() if file.path not in present and file.sha256]
    sizes = {(file.size, file.medium) for file in gone}  # what has none of these need not be read
    alike: defaultdict[tuple[str, str], list[File]] = defaultdict(list)
    for file in reversed(gone):
        alike[file.sha256, file.medium].append(file)
    renamed: dict[str, CorpusFile] = {}
    for new in fresh:
        olds = alike.get((_sha256(new), new.medium), []) if (new.size_bytes, new.medium) in sizes else []
        while olds:
            old = olds.pop()
            if not Path(old.archive or old.path).exists():
                renamed[old.path] = new
                break
    return renamed


def _sha256(file: CorpusFile) -> str:
    """Empty where it cannot be read."""
    try:
        return file.content.sha256()
    except OSError:
        return ""
