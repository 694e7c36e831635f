"""What a folder holds after a power cut, by what the shim saw being synced."""

import os
import shutil
from pathlib import Path


class Disk:
    """A folder that is whole on the disk now; `cut` brings it to what would have lasted of what came since."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.shadow = folder.with_name(f"{folder.name}.shadow")
        shutil.rmtree(self.shadow, ignore_errors=True)
        self.shadow.mkdir()
        paths = [folder, *folder.rglob("*")]
        self._bytes = {path.stat().st_ino: path.read_bytes() for path in paths if path.is_file()}
        self._names = {path.stat().st_ino: _entries(path) for path in paths if path.is_dir()}

    def cut(self, *, keep_names: bool) -> None:
        """Files have the bytes of their last sync, folders the names of theirs; or all names that they had, too."""
        self._folders = {path.stat().st_ino: path for path in [self.folder, *self.folder.rglob("*")] if path.is_dir()}
        lasting = self.folder.with_name(f"{self.folder.name}.lasting")
        self._restore(self.folder.stat().st_ino, lasting, keep_names)
        shutil.rmtree(self.folder)
        lasting.rename(self.folder)
        shutil.rmtree(self.shadow)

    def _restore(self, folder: int, to: Path, keep_names: bool) -> None:
        to.mkdir()
        for inode, name in _entries(self._folders[folder]) if keep_names else self._lasting_names(folder):
            if inode in self._folders:
                self._restore(inode, to / name, keep_names)
            else:
                (to / name).write_bytes(self._lasting_bytes(inode))

    def _lasting_names(self, folder: int) -> list[tuple[int, str]]:
        kept = self.shadow / str(folder)
        if not kept.exists():
            return self._names.get(folder, [])
        entries = [line.split(" ", 1) for line in kept.read_text().splitlines()]
        return [(int(inode), name) for inode, name in entries]

    def _lasting_bytes(self, inode: int) -> bytes:
        kept = self.shadow / str(inode)
        return kept.read_bytes() if kept.exists() else self._bytes.get(inode, b"")


def _entries(folder: Path) -> list[tuple[int, str]]:
    with os.scandir(folder) as found:
        return [(entry.inode(), entry.name) for entry in found]
