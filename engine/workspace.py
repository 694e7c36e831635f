"""Where model, index and checkpoint are when no flag says so: `.xmr/` beside the nearest `xmr.toml`, as git does it."""

from pathlib import Path

CONFIG_NAME = "xmr.toml"
FOLDER_NAME = ".xmr"


def find_root(start: Path | None = None) -> Path:
    """The nearest folder from `start` upwards that holds xmr.toml or .xmr/; `start` itself where none does."""
    start = (start or Path.cwd()).resolve()
    for folder in (start, *start.parents):
        if (folder / CONFIG_NAME).is_file() or (folder / FOLDER_NAME).is_dir():
            return folder
    return start


def config_path() -> Path:
    """The workspace's settings; the file may be absent."""
    return find_root() / CONFIG_NAME


def default_folder(name: str) -> Path:
    """`checkpoint`, `model`, `index` or `cache` of this workspace; may be absent."""
    return find_root() / FOLDER_NAME / name
