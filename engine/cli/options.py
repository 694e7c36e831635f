"""What commands share: their options, how they open a model, and how they tell what it runs on."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperCommand

from xmr.engine import terminal, workspace
from xmr.engine.errors import UsageError

DONE_WITH_SKIPPED = 3
WITHOUT_VALUE = {"--fold": "0.98"}  # what an option means that may stand alone

ModelOption = Annotated[Path | None, typer.Option("--model", help="Exported model folder; default .xmr/model.")]
IndexOption = Annotated[Path | None, typer.Option("--index", help="Index folder; default .xmr/index.")]
DeviceOption = Annotated[str, typer.Option("--device", help="auto, cpu, cuda or cuda:N.")]
RuntimeOption = Annotated[
    str, typer.Option("--runtime", help="auto (the fastest there is), onnxruntime, openvino or tensorrt.")
]
WorkersOption = Annotated[
    int, typer.Option("--workers", min=0, help="Decoding processes; 0: as many as are measured to be needed.")
]
ProfileOption = Annotated[bool, typer.Option("--profile", help="Tell the time of each stage, on stderr.")]
JsonOption = Annotated[bool, typer.Option("--json", help="One JSON object a line.")]


class OptionalValues(TyperCommand):
    """A command whose options in WITHOUT_VALUE may be followed by a number, or not."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        filled: list[str] = []
        for before, here, after in zip(["", *args], args, [*args[1:], ""], strict=False):
            filled.append(here)
            is_option = before not in self._with_value() and "--" not in filled
            if here in WITHOUT_VALUE and is_option and not _is_number(after):
                filled.append(WITHOUT_VALUE[here])
        return super().parse_args(ctx, filled)

    def _with_value(self) -> set[str]:
        """The options after which no option stands, but their value."""
        valued = (param for param in self.params if not getattr(param, "is_flag", True))
        return {name for param in valued for name in param.opts if name not in WITHOUT_VALUE}


def _is_number(argument: str) -> bool:
    try:
        float(argument)
    except ValueError:
        return False
    return True


def modalities_in(to: str | None) -> tuple[str, ...] | None:
    """Those of --to image,sound, each once; None: all. UsageError for what is none."""
    if to is None:
        return None
    from xmr.engine.media import MODALITIES

    names = tuple(dict.fromkeys(name.strip() for name in to.split(",")))
    if unknown := [name for name in names if name not in MODALITIES]:
        raise UsageError(f"--to {to}: {unknown[0]!r} is no modality; choose among {', '.join(MODALITIES)}")
    return names


def open_model(folder: Path | None, device: str, runtime: str, *, purpose: str = "corpus") -> Any:
    from xmr.engine.model import Model

    return Model.open(folder or workspace.default_folder("model"), device, runtime, purpose=purpose)


def tell_how(model: Any, modalities: Sequence[str]) -> None:
    """On stderr: on what the model runs, by which runtime and in which precision; and why not on a GPU that is here."""
    from xmr.engine.runtime import remarks

    choices = {name: model.choice(name) for name in modalities}
    for sentence in remarks():
        terminal.note(f"note: {sentence}")
    for reason, names in _grouped((choice.passed_over, name) for name, choice in choices.items() if choice.passed_over):
        terminal.note(f"note: {names} not on the GPU: {reason}")
    for device, names in _grouped((choice.device, name) for name, choice in choices.items()):
        ways = _grouped((str(choices[name]), name) for name in names.split(", "))
        told = "; ".join(f"{of} by {way}" for way, of in ways)
        terminal.note(f"model {model.name} on {device}: {told}")


def _grouped(pairs: Iterable[tuple[str, str]]) -> list[tuple[str, str]]:
    """Of (what, name) each what once, with its names as one phrase."""
    groups: dict[str, list[str]] = {}
    for what, name in pairs:
        groups.setdefault(what, []).append(name)
    return [(what, ", ".join(names)) for what, names in groups.items()]


def tell_stages(stages: Any) -> None:
    """How long each stage took and how many items it did, on stderr."""
    for row in stages.table():
        done = f"{row['items'] or '':>8}  {row['per_second'] or '':>9}"
        terminal.note(f"{row['stage']:<18}{row['seconds']:>9.3f} s  {done}  {row['note']}".rstrip())
