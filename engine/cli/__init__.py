"""The xmr command: parse, call, print. Heavy imports stand inside the commands, so that --help is instant."""

from typing import Any

import typer
from typer.core import TyperGroup

from xmr.engine import terminal
from xmr.engine.cli import ask, care, corpus, exchange, serve
from xmr.engine.cli.options import OptionalValues
from xmr.engine.errors import UsageError, XmrError
from xmr.engine.plan import plan

INTERRUPTED = 130


class Commands(TyperGroup):
    """Turns the user's mistakes into one sentence and an exit code."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except XmrError as error:
            terminal.note(f"xmr: {error}")
            raise typer.Exit(2 if isinstance(error, UsageError) else 1) from None
        except BrokenPipeError:
            raise
        except OSError as error:  # a full disk, a folder that may not be written
            place = f"{error.filename}: " if error.filename else ""
            terminal.note(f"xmr: {place}{error.strerror or error}; mend that and run the same command again")
            raise typer.Exit(1) from None
        except KeyboardInterrupt:
            terminal.note("xmr: interrupted")
            raise typer.Exit(INTERRUPTED) from None


app = typer.Typer(
    cls=Commands,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    help="Learn one space for what is seen, heard and read; embed a corpus with it and rank it.",
)


def _mount_training() -> None:
    """The only arrow from engine to train: the names of its commands. What they need is imported when they run."""
    from xmr.train import cli

    for name, command in cli.COMMANDS.items():
        app.command(name)(command)


_mount_training()
app.command()(plan)
for part in (corpus, ask, care, exchange, serve):
    for name, command in part.COMMANDS.items():
        app.command(name, cls=OptionalValues)(command)
