"""Reconstruction of each modality from the rows of the others, by attention (VASE)."""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

from xmr.train.losses.scores import check_pairs

WeightAxis = Literal["target", "source"]

LEAK = 0.1  # of the LeakyReLU on the scores that weigh a reconstruction
RECONSTRUCTION_EPS = 1e-8


def reconstruction(features: Sequence[Tensor], smooth: float, weight_axis: WeightAxis = "target") -> Tensor:
    """Σ ‖f − f″‖² over all rows of all modalities, f″ rebuilt twice from the other modalities (VASE).

    features: 2 or 3 tensors (n, d) in the order image, speech, text. smooth sharpens the weights. With three, `target`
    spreads each source over the targets, as published, so that the weights of one target don't sum to 1; `source`
    spreads each target over the sources, so that they do. With two there is only the latter.
    """
    if len(features) not in (2, 3):
        raise ValueError(f"{len(features)} modalities found; a reconstruction takes 2 or 3")
    if weight_axis not in ("target", "source"):
        raise ValueError(f"weight_axis {weight_axis!r} found; it is 'target' or 'source'")
    for other in features[1:]:
        check_pairs(features[0], other)
    rebuilt: Sequence[Tensor] = features
    for _ in range(2):
        rebuilt = _rebuild(rebuilt, smooth, weight_axis)
    return torch.stack([(f - g).square().sum() for f, g in zip(features, rebuilt, strict=True)]).sum()


def _rebuild(features: Sequence[Tensor], smooth: float, weight_axis: WeightAxis) -> list[Tensor]:
    """Each modality from the rows of the others."""
    rebuilt = []
    for i, target in enumerate(features):
        sources = torch.cat([*features[:i], *features[i + 1 :]])  # (n, d) or (2n, d)
        if len(features) == 2 or weight_axis == "source":
            weights = _attention(target @ sources.T, smooth)
        else:
            weights = _attention(sources @ target.T, smooth).T
        rebuilt.append(weights @ sources)
    return rebuilt


def _attention(scores: Tensor, smooth: float) -> Tensor:
    """Weights of the shape of scores; each row sums to 1."""
    leaky = functional.leaky_relu(scores, LEAK)
    norms: Tensor = torch.linalg.vector_norm(leaky, dim=1, keepdim=True)
    return (smooth * leaky / (norms + RECONSTRUCTION_EPS)).softmax(dim=1)
