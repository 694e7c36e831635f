"""The commands that make, train, evaluate and export a model. What needs torch is imported when a command runs."""

from collections.abc import Callable

from xmr.train.cli import compare, data, evaluate, export, init, train

COMMANDS: dict[str, Callable[..., None]] = {
    "init": init.init,
    "fetch": data.fetch,
    "speak": data.speak,
    "train": train.train,
    "eval": evaluate.evaluate,
    "compare": compare.compare,
    "export": export.export,
}
