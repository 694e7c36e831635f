"""Losses that classify each pair against the batch: in-batch softmax and sigmoid."""

import torch
from torch import Tensor
from torch.nn import functional

from xmr.train.losses.scores import belong_together, on_diagonal, pair_scores


def info_nce(a: Tensor, b: Tensor, ids: Tensor | None = None, temperature: float | Tensor = 0.07) -> Tensor:
    """Symmetric cross-entropy of each pair against the batch, mean over rows (van den Oord et al. 2018).

    a, b (n, d). Rows of equal id other than the pair itself are left out of the denominator. A temperature that is a
    tensor can learn.
    """
    logits = pair_scores(a, b) / temperature
    same = belong_together(ids, logits)
    logits = logits.masked_fill(same & ~on_diagonal(logits), -torch.inf)
    target = torch.arange(len(a), device=a.device)
    return (functional.cross_entropy(logits, target) + functional.cross_entropy(logits.T, target)) / 2


def sigmoid(
    a: Tensor,
    b: Tensor,
    ids: Tensor | None = None,
    temperature: float | Tensor = 0.1,
    bias: float | Tensor = -10.0,
) -> Tensor:
    """−1/n Σ_ij log σ(z_ij (a_i·b_j / temperature + bias)), z = 1 where two rows belong together, else −1; a, b (n, d).

    SigLIP (Zhai et al. 2023), whose t is 1 / temperature; the defaults are where both start to learn there.
    Rows of equal id count as positives of one another.
    """
    logits = pair_scores(a, b) / temperature + bias
    signed = torch.where(belong_together(ids, logits), logits, -logits)
    return -functional.logsigmoid(signed).sum() / len(a)
