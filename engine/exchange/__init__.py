"""Rows that come from elsewhere or go there: matrices of embeddings with the list of what their rows are."""

from xmr.engine.exchange.given import read_blocks

__all__ = ["read_blocks"]
