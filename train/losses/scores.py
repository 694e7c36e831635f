"""Similarities of rows, and what every loss of a batch has to know of it: its pairs, its ids, its blocks."""

from typing import Any, Literal

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

Similarity = Literal["dot", "order"]

BLOCK_ELEMENTS = 1 << 22  # of the largest intermediate tensor: 16 MB of float32


def similarities(a: Tensor, b: Tensor, similarity: Similarity = "dot") -> Tensor:
    """(n, m): row i of a against row j of b, a (n, d), b (m, d).

    `order` is −‖max(0, b_j − a_i)‖₂, a the images and b the captions, which are the more general (Vendrov et al. 2016).
    Their paper squares the norm; the published code of VSE++ and of its descendants does not, and neither does this.
    """
    if a.ndim != 2 or b.ndim != 2 or a.shape[1] != b.shape[1]:
        raise ValueError(f"a is {tuple(a.shape)}, b is {tuple(b.shape)}; both must be (rows, d) with the same d")
    if similarity == "dot":
        return a @ b.T
    if similarity == "order":
        scores: Tensor = _Order.apply(a, b)
        return scores
    raise ValueError(f"similarity {similarity!r} found; it is 'dot' or 'order'")


def pair_scores(a: Tensor, b: Tensor, similarity: Similarity = "dot") -> Tensor:
    """(n, n): as `similarities`, of rows that are pairs; a, b (n, d)."""
    check_pairs(a, b)
    return similarities(a, b, similarity)


def on_diagonal(scores: Tensor) -> Tensor:
    """(n, n): True on the diagonal."""
    return torch.eye(len(scores), dtype=torch.bool, device=scores.device)


def belong_together(ids: Tensor | None, scores: Tensor) -> Tensor:
    """(n, n): the rows that are no negatives of one another, the pair itself among them."""
    if scores.ndim != 2 or scores.shape[0] != scores.shape[1]:
        raise ValueError(f"scores are {tuple(scores.shape)}; they must be (n, n), the pairs on the diagonal")
    if ids is None:
        return on_diagonal(scores)
    check_ids(ids, len(scores))
    return ids[:, None] == ids[None, :]


def blocks(n: int, row_elements: int) -> list[slice]:
    """Slices that cover n rows, each of at most BLOCK_ELEMENTS where a row takes row_elements."""
    n_rows = max(1, BLOCK_ELEMENTS // max(1, row_elements))
    return [slice(start, start + n_rows) for start in range(0, n, n_rows)]


def check_pairs(a: Tensor, b: Tensor) -> None:
    """ValueError unless both are (n, d)."""
    if a.ndim != 2 or a.shape != b.shape:
        raise ValueError(f"rows are {tuple(a.shape)} and {tuple(b.shape)}; both must be (n, d), row i of each a pair")


def check_ids(ids: Tensor, n: int) -> None:
    """ValueError unless there is one id for each of n rows."""
    if ids.shape != (n,):
        raise ValueError(f"ids are {tuple(ids.shape)}, the batch has {n} rows")


class _Order(torch.autograd.Function):
    """−‖max(0, b_j − a_i)‖₂ in blocks of rows of a: the (n, m, d) differences are never there at once.

    The gradient computes them again instead of keeping them; it is 0 where the norm is, and where sqrt would have none.
    """

    @staticmethod
    def forward(ctx: Any, a: Tensor, b: Tensor) -> Tensor:
        scores = a.new_empty(len(a), len(b))
        for rows in blocks(len(a), b.numel()):
            scores[rows] = -torch.linalg.vector_norm(_violations(a[rows], b), dim=2)
        ctx.save_for_backward(a, b, scores)
        return scores

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor]:
        a, b, scores = ctx.saved_tensors
        weights = torch.where(scores == 0, 0, gradient / scores)  # (n, m)
        of_a, of_b = torch.empty_like(a), torch.zeros_like(b)
        for rows in blocks(len(a), b.numel()):
            pulls = _violations(a[rows], b).mul_(weights[rows, :, None])  # (rows, m, d)
            of_a[rows] = -pulls.sum(dim=1)
            of_b += pulls.sum(dim=0)
        return of_a, of_b


def _violations(a: Tensor, b: Tensor) -> Tensor:
    """(n, m, d)."""
    return (b[None, :] - a[:, None]).clamp_(min=0)
