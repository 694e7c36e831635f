"""Losses with a margin: a pair has to be ahead of all negatives, of the hardest, or of some drawn at random."""

from typing import Literal

import torch
from torch import Tensor

from xmr.train.losses.scores import Similarity, belong_together, on_diagonal, pair_scores

Diagonal = Literal["mask", "dsve"]


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
    scores = pair_scores(a, b, similarity)  # (n, n)
    positives = scores.diagonal()
    same = belong_together(ids, scores)
    loss = (margin - positives[:, None] + scores).clamp(min=0).masked_fill(same, 0).sum()
    if both_ways:
        loss = loss + (margin - positives[None, :] + scores).clamp(min=0).masked_fill(same, 0).sum()
    return loss


def hardest_negative(
    a: Tensor,
    b: Tensor,
    ids: Tensor | None = None,
    margin: float = 0.2,
    n_hardest: int = 1,
    diagonal: Diagonal = "mask",
    similarity: Similarity = "dot",
) -> Tensor:
    """The ranking loss over the n_hardest closest negatives of each row only, summed both ways; a, b (n, d).

    `mask` with one negative is VSE++ (Faghri et al. 2018). `dsve` keeps a pair from being its own negative as published
    DSVE-loc does (Engilberge et al. 2018): it takes 2 S(a_i, b_i) off the diagonal, so that a pair that scores below 0
    becomes a negative of itself. Other rows of equal id are left out either way. A row with fewer counts those it has.
    """
    if n_hardest < 1:
        raise ValueError(f"n_hardest is {n_hardest}; it is at least 1")
    scores = pair_scores(a, b, similarity)  # (n, n)
    negatives = _negatives(scores, belong_together(ids, scores), diagonal)
    positives = scores.diagonal()
    k = min(n_hardest, len(scores))
    of_rows = margin - positives[:, None] + negatives.topk(k, dim=1).values  # (n, k)
    of_columns = margin - positives[None, :] + negatives.topk(k, dim=0).values  # (k, n)
    return of_rows.clamp(min=0).sum() + of_columns.clamp(min=0).sum()


def semi_hard(scores: Tensor, ids: Tensor | None = None, margin: float = 1.0, faithful: bool = False) -> Tensor:
    """[margin − S_ii + S_ij]₊ with the best j that still scores below the pair: mean over rows, plus that over columns.

    scores (n, n), the pairs on the diagonal. ResDAVEnet-VQ (Harwath et al. 2020). A row without such a j costs nothing;
    faithful: it is ranked against a score of 0, and so is a row whose impostors all score below 0, as published.
    """
    same = belong_together(ids, scores)
    rows = _semi_hard_rows(scores, same, margin, faithful)
    return rows + _semi_hard_rows(scores.T, same, margin, faithful)


def sampled_impostors(
    scores: Tensor,
    ids: Tensor | None = None,
    margin: float = 1.0,
    generator: torch.Generator | None = None,
    draws: tuple[Tensor, Tensor] | None = None,
) -> Tensor:
    """1/n Σ over pairs i of [margin − S_ii + S_ki]₊ + [margin − S_ii + S_il]₊: DAVEnet (Harwath et al. 2018).

    scores (n, n), image i against sound j. Image k and sound l are drawn at random among the rows of another id; draws
    names them instead, k and l (n,) each. An impostor of equal id costs nothing, so a batch of one id costs 0.
    """
    same = belong_together(ids, scores)
    rows = torch.arange(len(scores), device=scores.device)
    images, sounds = _draw_impostors(same, generator) if draws is None else draws
    if images.shape != rows.shape or sounds.shape != rows.shape:
        raise ValueError(f"draws are {tuple(images.shape)} and {tuple(sounds.shape)}, the batch has {len(rows)} rows")
    positives = scores.diagonal()
    of_images = (margin - positives + scores[images, rows]).clamp(min=0).masked_fill(same[images, rows], 0)
    of_sounds = (margin - positives + scores[rows, sounds]).clamp(min=0).masked_fill(same[rows, sounds], 0)
    return (of_images + of_sounds).sum() / len(rows)


def _negatives(scores: Tensor, same: Tensor, diagonal: Diagonal) -> Tensor:
    if diagonal == "mask":
        return scores.masked_fill(same, -torch.inf)
    if diagonal == "dsve":
        return (scores - 2 * scores.diagonal().diag()).masked_fill(same & ~on_diagonal(scores), -torch.inf)
    raise ValueError(f"diagonal {diagonal!r} found; it is 'mask' or 'dsve'")


def _semi_hard_rows(scores: Tensor, same: Tensor, margin: float, faithful: bool) -> Tensor:
    positives = scores.diagonal()
    is_impostor = (scores < positives[:, None]) & ~same
    hardest = scores.masked_fill(~is_impostor, 0.0 if faithful else -torch.inf).max(dim=1).values
    return (margin - positives + hardest).clamp(min=0).mean()


def _draw_impostors(same: Tensor, generator: torch.Generator | None) -> tuple[Tensor, Tensor]:
    """An image and a sound for each row, (n,) each; a row whose id is everybody's draws from all of them."""
    allowed = ~same | same.all(dim=1, keepdim=True)
    weights = allowed.to(generator.device if generator else same.device, torch.float32)
    drawn = torch.multinomial(weights, 2, replacement=True, generator=generator).to(same.device)
    return drawn[:, 0], drawn[:, 1]
