"""What was judged: the run in a few facts, and every setting it was trained with."""

from collections.abc import Sequence
from datetime import UTC, datetime
from html import escape
from importlib.metadata import version

from xmr.train.checkpoint import Checkpoint
from xmr.train.config import dump_config
from xmr.train.evaluate.held_out import HeldOut
from xmr.train.report.page import table

COMPARISONS = {"dot": "cosine of the embeddings", "order": "order embeddings: minus the length of what is violated"}


def settings_tables(checkpoint: Checkpoint, held_out: HeldOut, split: str, sources: Sequence[str]) -> str:
    """The facts as a table, the settings as the TOML that trains the same again."""
    rows = [[escape(name), escape(value)] for name, value in _facts(checkpoint, held_out, split, sources)]
    toml = escape(dump_config(checkpoint.config))
    return (
        f"{table(('what', 'value'), rows, 'The run')}"
        f'<details><summary>All settings, as TOML</summary><pre tabindex="0">{toml}</pre></details>'
    )


def _facts(checkpoint: Checkpoint, held_out: HeldOut, split: str, sources: Sequence[str]) -> list[tuple[str, str]]:
    config, state, model = checkpoint.config, checkpoint.state, held_out.model
    encoders = [f"{modality}: {config.encoders[modality].name}" for modality in model.modalities]
    n_numbers = sum(parameter.numel() for parameter in model.parameters())
    comparison = COMPARISONS.get(held_out.comparison, f"maps of where and when, {held_out.comparison}")
    return [
        ("recipe", " ".join(part for part in (config.recipe, config.variant, config.size) if part)),
        ("encoders", ", ".join(encoders)),
        ("embedding", f"{model.dim} numbers, compared by {comparison}"),
        ("weights", f"{n_numbers:,} numbers"),
        ("losses", ", ".join(config.losses) or "those of the stages"),
        ("trained", f"{state.get('epoch')} of {state.get('n_epochs')} epochs, {checkpoint.step:,} steps"),
        ("judged on", f"{len(held_out.rows):,} {split} rows of {', '.join(sources)}"),
        ("drawn by", f"xmr {version('xmr')}, {datetime.now(UTC):%Y-%m-%d %H:%M} UTC"),
    ]
