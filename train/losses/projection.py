"""Cross-modal projection matching and classification (Zhang and Lu 2018)."""

from torch import Tensor
from torch.nn import functional

from xmr.train.losses.scores import belong_together, check_ids, check_pairs

CMPM_EPS = 1e-8  # as published
SQUARED_NORM_FLOOR = 1e-12  # below it rows are divided by the floor


def cmpm(a: Tensor, b: Tensor, ids: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Cross-modal projection matching, a to b and b to a, means over the batch; a the images, b the texts (n, d).

    KL of the softmax over the projections of a row on the unit rows of the other modality, against a uniform choice
    among the rows of equal id (Zhang and Lu 2018).
    """
    check_pairs(a, b)
    return _projection_matching(a, b, ids), _projection_matching(b, a, ids)


def cmpc(a: Tensor, b: Tensor, ids: Tensor, weight: Tensor, label_smoothing: float = 0.0) -> tuple[Tensor, Tensor]:
    """Cross-modal projection classification of a and of b, means over the batch (Zhang and Lu 2018).

    Each row is projected on the unit row of its pair, then classified by the unit columns of weight (d, n_classes),
    which both modalities share. a, b (n, d); ids (n,) are class numbers from 0.
    """
    check_pairs(a, b)
    _check_classes(a, ids, weight)
    columns = functional.normalize(weight, dim=0, eps=SQUARED_NORM_FLOOR**0.5)
    return (
        functional.cross_entropy(_project(a, b) @ columns, ids, label_smoothing=label_smoothing),
        functional.cross_entropy(_project(b, a) @ columns, ids, label_smoothing=label_smoothing),
    )


def _projection_matching(x: Tensor, z: Tensor, ids: Tensor | None) -> Tensor:
    logits = x @ _unit(z).T  # (n, n)
    p = logits.softmax(dim=1)
    same = belong_together(ids, logits).to(logits.dtype)
    q = same / same.sum(dim=1, keepdim=True)
    return (p * (CMPM_EPS + p / (q + CMPM_EPS)).log()).sum(dim=1).mean()


def _project(x: Tensor, z: Tensor) -> Tensor:
    """Row i of x on the direction of row i of z."""
    direction = _unit(z)
    return (x * direction).sum(dim=1, keepdim=True) * direction


def _unit(rows: Tensor) -> Tensor:
    return functional.normalize(rows, dim=1, eps=SQUARED_NORM_FLOOR**0.5)


def _check_classes(a: Tensor, ids: Tensor, weight: Tensor) -> None:
    check_ids(ids, len(a))
    if weight.ndim != 2 or len(weight) != a.shape[1]:
        raise ValueError(f"weight is {tuple(weight.shape)}, the rows have {a.shape[1]} dims; it must be (d, n_classes)")
    low, high = ids.min().item(), ids.max().item()
    if low < 0 or high >= weight.shape[1]:
        raise ValueError(f"ids reach from {low} to {high}, weight has {weight.shape[1]} classes")
