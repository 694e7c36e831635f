"""The files a user has: which of them hold a medium xmr knows, in an order that does not depend on the disk.

    scan ─► walk (ignore)        the files under a folder
         ─► archive              the members of a .tar, read in place
         ─► manifest             tables that name files: what they say of them becomes metadata

Nothing but tables, ignore files and the headers of archives is opened here.
"""

from collections.abc import Iterable
from pathlib import Path

from xmr.engine.corpus.archive import is_archive, is_packed_archive, take_members
from xmr.engine.corpus.found import CorpusFile, Finds, Scan
from xmr.engine.corpus.manifest import Table, take_table
from xmr.engine.corpus.walk import walk
from xmr.engine.errors import XmrError
from xmr.engine.media import table

__all__ = ["CorpusFile", "Scan", "scan"]


def scan(paths: Iterable[Path], media: Iterable[str], *, ignore: bool = True, text_column: str | None = None) -> Scan:
    """Every file under `paths` whose medium is among `media`: in folders, in .tar archives, named by manifests.

    Hidden files and folders are left out, and with `ignore` what .gitignore and .xmrignore files say. Links to files
    are followed only inside the path they are found under, links to folders never. `text_column` is the column of a
    table that is its text, as for reading it. A missing path or one with nothing to embed raises XmrError.
    """
    roots = [path.resolve() for path in paths]
    finds = Finds(set(media))
    tables: dict[Path, Table] = {}
    for root in roots:
        if not root.exists():
            raise XmrError(f"{root}: no such file or folder; check the path")
        for path, status in walk(root, finds, ignore=ignore):
            if is_archive(path):
                take_members(path, status, root, finds)
            elif is_packed_archive(path):
                finds.refuse(path, f"{path}: a packed archive cannot be read in place; unpack it, or pack it as .tar")
            elif path.suffix.lower() in table.SUFFIXES:
                tables[path] = Table(path, status, root)
            else:
                finds.take(path, status, root)
    for path in sorted(tables):  # once all files are known
        take_table(tables[path], roots, finds, text_column)
    if not finds.files and not finds.unreadable:
        raise XmrError(f"{', '.join(map(str, roots))}: {finds.nothing_to_embed()}")
    return finds.scan(roots)
