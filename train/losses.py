"""Losses of pairs of embeddings and of class logits. Rows are used as given: the caller normalises.

`ids` say what belongs together: rows of equal id are never negatives of one another. None: every row is its own.
"""

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

Similarity = Literal["dot", "order"]


def similarities(a: Tensor, b: Tensor, similarity: Similarity = "dot") -> Tensor:
    """(n, m): row i of a against row j of b. `order` is −‖max(0, b_j − a_i)‖² (Vendrov et al. 2016)."""
    if similarity == "dot":
        return a @ b.T
    return -(b.unsqueeze(0) - a.unsqueeze(1)).clamp(min=0).square().sum(dim=2)


def ranking(
    a: Tensor,
    b: Tensor,
    ids: Tensor | None = None,
    margin: float = 0.2,
    both_ways: bool = True,
    similarity: Similarity = "dot",
) -> Tensor:
    """Σ over pairs i and negatives j of [margin − S(a_i, b_i) + S(a_i, b_j)]₊; both ways adds b's side.

    a, b (n, d) with row i of each a pair. See, Hear and Read (2017), section 3.
    """
    scores = similarities(a, b, similarity)  # (n, n)
    positives = scores.diagonal()
    same = _same(ids, len(a), a.device)
    loss = (margin - positives[:, None] + scores).clamp(min=0).masked_fill(same, 0).sum()
    if both_ways:
        loss = loss + (margin - positives[None, :] + scores).clamp(min=0).masked_fill(same, 0).sum()
    return loss


def info_nce(a: Tensor, b: Tensor, ids: Tensor | None = None, temperature: float | Tensor = 0.07) -> Tensor:
    """Symmetric cross-entropy of each pair against the batch, mean over rows (van den Oord et al. 2018).

    Rows of equal id other than the pair itself are left out of the denominator.
    """
    logits = a @ b.T / temperature
    same = _same(ids, len(a), a.device)
    others = same & ~torch.eye(len(a), dtype=torch.bool, device=a.device)
    logits = logits.masked_fill(others, -torch.inf)
    target = torch.arange(len(a), device=a.device)
    return (functional.cross_entropy(logits, target) + functional.cross_entropy(logits.T, target)) / 2


def kl_transfer(student_logits: Tensor, teacher_probabilities: Tensor) -> Tensor:
    """Σ over rows of KL(teacher ‖ softmax(student)): model transfer, See, Hear and Read (2017), section 3."""
    log_student = functional.log_softmax(student_logits, dim=1)
    return functional.kl_div(log_student, teacher_probabilities, reduction="sum")


def _same(ids: Tensor | None, n: int, device: torch.device) -> Tensor:
    """(n, n): the rows that are no negatives of one another, the pair itself among them."""
    if ids is None:
        return torch.eye(n, dtype=torch.bool, device=device)
    return ids[:, None] == ids[None, :]


LOSSES: dict[str, Callable[..., Tensor]] = {
    "ranking": ranking,
    "info_nce": info_nce,
    "kl_transfer": kl_transfer,
}
