"""Losses of pairs, of class logits and of reconstructions. Rows are used as given: the caller normalises.

`ids` say what belongs together: rows of equal id are never negatives of one another. None: every row is its own, and
duplicates in a batch are negatives, as in most published code. Each loss is a sum or a mean as in its source.
"""

from collections.abc import Callable, Sequence
from typing import Any, Literal

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional

Similarity = Literal["dot", "order"]
Diagonal = Literal["mask", "dsve"]
WeightAxis = Literal["target", "source"]
MatchKind = Literal["SISA", "MISA", "SIMA"]

BLOCK_ELEMENTS = 1 << 22  # of the largest intermediate tensor: 16 MB of float32
CMPM_EPS = 1e-8  # Zhang and Lu 2018, as published
SQUARED_NORM_FLOOR = 1e-12  # below it CMPM and CMPC divide by the floor
LEAK = 0.1  # of the LeakyReLU on the scores that weigh a reconstruction
RECONSTRUCTION_EPS = 1e-8


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
    scores = _pair_scores(a, b, similarity)  # (n, n)
    positives = scores.diagonal()
    same = _same(ids, scores)
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
    scores = _pair_scores(a, b, similarity)  # (n, n)
    negatives = _negatives(scores, _same(ids, scores), diagonal)
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
    same = _same(ids, scores)
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
    same = _same(ids, scores)
    rows = torch.arange(len(scores), device=scores.device)
    images, sounds = _draw_impostors(same, generator) if draws is None else draws
    if images.shape != rows.shape or sounds.shape != rows.shape:
        raise ValueError(f"draws are {tuple(images.shape)} and {tuple(sounds.shape)}, the batch has {len(rows)} rows")
    positives = scores.diagonal()
    of_images = (margin - positives + scores[images, rows]).clamp(min=0).masked_fill(same[images, rows], 0)
    of_sounds = (margin - positives + scores[rows, sounds]).clamp(min=0).masked_fill(same[rows, sounds], 0)
    return (of_images + of_sounds).sum() / len(rows)


def matchmap(image_maps: Tensor, sound_maps: Tensor) -> Tensor:
    """(n, h, w, t), or (n, p, t): how well each place of image i fits each frame of sound i (DAVEnet).

    image_maps (n, d, h, w) or (n, d, p), sound_maps (n, d, t); an entry is the inner product over d.
    """
    _check_maps(image_maps, sound_maps)
    if len(image_maps) != len(sound_maps):
        raise ValueError(f"{len(image_maps)} image maps and {len(sound_maps)} sound maps; row i of each is a pair")
    places = image_maps.flatten(2).mT @ sound_maps  # (n, p, t)
    return places.reshape(len(places), *image_maps.shape[2:], -1)


def matchmap_similarity(
    image_maps: Tensor, sound_maps: Tensor, n_frames: Tensor | None = None, kind: MatchKind = "MISA"
) -> Tensor:
    """(n, m): every image against every sound, by pooling the matchmap of the two (DAVEnet).

    image_maps (n, d, h, w) or (n, d, p), sound_maps (m, d, t) of which the first n_frames (m,) count, at least one.
    SISA: mean over places and frames. MISA: best place of each frame, mean over frames. SIMA: best frame of each
    place, mean over places.
    """
    _check_maps(image_maps, sound_maps)
    images = image_maps.flatten(2)  # (n, d, p)
    is_frame = _is_frame(n_frames, sound_maps)  # (m, t)
    if kind == "SISA":
        return images.mean(dim=2) @ _mean_of_frames(sound_maps, is_frame[:, None]).T
    if kind not in ("MISA", "SIMA"):
        raise ValueError(f"kind {kind!r} found; it is 'SISA', 'MISA' or 'SIMA'")
    frames = sound_maps.transpose(0, 1).flatten(1)  # (d, m * t)
    pool = _best_places if kind == "MISA" else _best_frames
    blocks = _blocks(len(images), images.shape[2] * frames.shape[1])
    return torch.cat([pool(images[rows].mT @ frames, is_frame) for rows in blocks])


def info_nce(a: Tensor, b: Tensor, ids: Tensor | None = None, temperature: float | Tensor = 0.07) -> Tensor:
    """Symmetric cross-entropy of each pair against the batch, mean over rows (van den Oord et al. 2018).

    a, b (n, d). Rows of equal id other than the pair itself are left out of the denominator. A temperature that is a
    tensor can learn.
    """
    logits = _pair_scores(a, b) / temperature
    same = _same(ids, logits)
    logits = logits.masked_fill(same & ~_pairs(logits), -torch.inf)
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
    logits = _pair_scores(a, b) / temperature + bias
    signed = torch.where(_same(ids, logits), logits, -logits)
    return -functional.logsigmoid(signed).sum() / len(a)


def cmpm(a: Tensor, b: Tensor, ids: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Cross-modal projection matching, a to b and b to a, means over the batch; a the images, b the texts (n, d).

    KL of the softmax over the projections of a row on the unit rows of the other modality, against a uniform choice
    among the rows of equal id (Zhang and Lu 2018).
    """
    _check_pairs(a, b)
    return _projection_matching(a, b, ids), _projection_matching(b, a, ids)


def cmpc(a: Tensor, b: Tensor, ids: Tensor, weight: Tensor, label_smoothing: float = 0.0) -> tuple[Tensor, Tensor]:
    """Cross-modal projection classification of a and of b, means over the batch (Zhang and Lu 2018).

    Each row is projected on the unit row of its pair, then classified by the unit columns of weight (d, n_classes),
    which both modalities share. a, b (n, d); ids (n,) are class numbers from 0.
    """
    _check_pairs(a, b)
    _check_classes(a, ids, weight)
    columns = functional.normalize(weight, dim=0, eps=SQUARED_NORM_FLOOR**0.5)
    return (
        functional.cross_entropy(_project(a, b) @ columns, ids, label_smoothing=label_smoothing),
        functional.cross_entropy(_project(b, a) @ columns, ids, label_smoothing=label_smoothing),
    )


def kl_transfer(student_logits: Tensor, teacher_probabilities: Tensor) -> Tensor:
    """Σ over rows of KL(teacher ‖ softmax(student)): model transfer, See, Hear and Read (2017), section 3.

    Both (n, n_classes).
    """
    if student_logits.ndim != 2 or student_logits.shape != teacher_probabilities.shape:
        shapes = tuple(student_logits.shape), tuple(teacher_probabilities.shape)
        raise ValueError(f"student_logits are {shapes[0]}, teacher_probabilities {shapes[1]}; both are (n, n_classes)")
    log_student = functional.log_softmax(student_logits, dim=1)
    return functional.kl_div(log_student, teacher_probabilities, reduction="sum")


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
        _check_pairs(features[0], other)
    rebuilt: Sequence[Tensor] = features
    for _ in range(2):
        rebuilt = _rebuild(rebuilt, smooth, weight_axis)
    return torch.stack([(f - g).square().sum() for f, g in zip(features, rebuilt, strict=True)]).sum()


class _Order(torch.autograd.Function):
    """−‖max(0, b_j − a_i)‖₂ in blocks of rows of a: the (n, m, d) differences are never there at once.

    The gradient computes them again instead of keeping them; it is 0 where the norm is, and where sqrt would have none.
    """

    @staticmethod
    def forward(ctx: Any, a: Tensor, b: Tensor) -> Tensor:
        scores = a.new_empty(len(a), len(b))
        for rows in _blocks(len(a), b.numel()):
            scores[rows] = -torch.linalg.vector_norm(_violations(a[rows], b), dim=2)
        ctx.save_for_backward(a, b, scores)
        return scores

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor]:
        a, b, scores = ctx.saved_tensors
        weights = torch.where(scores == 0, 0, gradient / scores)  # (n, m)
        of_a, of_b = torch.empty_like(a), torch.zeros_like(b)
        for rows in _blocks(len(a), b.numel()):
            pulls = _violations(a[rows], b).mul_(weights[rows, :, None])  # (rows, m, d)
            of_a[rows] = -pulls.sum(dim=1)
            of_b += pulls.sum(dim=0)
        return of_a, of_b


def _violations(a: Tensor, b: Tensor) -> Tensor:
    """(n, m, d)."""
    return (b[None, :] - a[:, None]).clamp_(min=0)


def _blocks(n: int, row_elements: int) -> list[slice]:
    """Slices that cover n rows, each of at most BLOCK_ELEMENTS where a row takes row_elements."""
    n_rows = max(1, BLOCK_ELEMENTS // max(1, row_elements))
    return [slice(start, start + n_rows) for start in range(0, n, n_rows)]


def _pair_scores(a: Tensor, b: Tensor, similarity: Similarity = "dot") -> Tensor:
    _check_pairs(a, b)
    return similarities(a, b, similarity)


def _pairs(scores: Tensor) -> Tensor:
    """(n, n): True on the diagonal."""
    return torch.eye(len(scores), dtype=torch.bool, device=scores.device)


def _same(ids: Tensor | None, scores: Tensor) -> Tensor:
    """(n, n): the rows that are no negatives of one another, the pair itself among them."""
    if scores.ndim != 2 or scores.shape[0] != scores.shape[1]:
        raise ValueError(f"scores are {tuple(scores.shape)}; they must be (n, n), the pairs on the diagonal")
    if ids is None:
        return _pairs(scores)
    _check_ids(ids, len(scores))
    return ids[:, None] == ids[None, :]


def _negatives(scores: Tensor, same: Tensor, diagonal: Diagonal) -> Tensor:
    if diagonal == "mask":
        return scores.masked_fill(same, -torch.inf)
    if diagonal == "dsve":
        return (scores - 2 * scores.diagonal().diag()).masked_fill(same & ~_pairs(scores), -torch.inf)
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


def _is_frame(n_frames: Tensor | None, sound_maps: Tensor) -> Tensor:
    """(m, t): True before the end of each sound."""
    m, _, t = sound_maps.shape
    steps = torch.arange(t, device=sound_maps.device)
    if n_frames is None:
        return (steps < t).expand(m, t)
    if n_frames.shape != (m,):
        raise ValueError(f"n_frames are {tuple(n_frames.shape)}, there are {m} sound maps")
    return steps < n_frames.to(sound_maps.device).clamp(min=1)[:, None]


def _mean_of_frames(values: Tensor, is_frame: Tensor) -> Tensor:
    """The mean over the last axis of what is_frame, which broadcasts, lets through."""
    return values.masked_fill(~is_frame, 0).sum(dim=-1) / is_frame.sum(dim=-1)


def _best_places(products: Tensor, is_frame: Tensor) -> Tensor:
    """(rows, m) of the products (rows, p, m * t) of places and frames."""
    best = products.max(dim=1).values
    return _mean_of_frames(best.reshape(-1, *is_frame.shape), is_frame)


def _best_frames(products: Tensor, is_frame: Tensor) -> Tensor:
    """(rows, m) of the products (rows, p, m * t) of places and frames."""
    frames = products.masked_fill(~is_frame.flatten(), -torch.inf)
    return frames.reshape(*frames.shape[:2], *is_frame.shape).max(dim=3).values.mean(dim=1)


def _projection_matching(x: Tensor, z: Tensor, ids: Tensor | None) -> Tensor:
    logits = x @ _unit(z).T  # (n, n)
    p = logits.softmax(dim=1)
    same = _same(ids, logits).to(logits.dtype)
    q = same / same.sum(dim=1, keepdim=True)
    return (p * (CMPM_EPS + p / (q + CMPM_EPS)).log()).sum(dim=1).mean()


def _project(x: Tensor, z: Tensor) -> Tensor:
    """Row i of x on the direction of row i of z."""
    direction = _unit(z)
    return (x * direction).sum(dim=1, keepdim=True) * direction


def _unit(rows: Tensor) -> Tensor:
    return functional.normalize(rows, dim=1, eps=SQUARED_NORM_FLOOR**0.5)


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


def _check_pairs(a: Tensor, b: Tensor) -> None:
    if a.ndim != 2 or a.shape != b.shape:
        raise ValueError(f"rows are {tuple(a.shape)} and {tuple(b.shape)}; both must be (n, d), row i of each a pair")


def _check_ids(ids: Tensor, n: int) -> None:
    if ids.shape != (n,):
        raise ValueError(f"ids are {tuple(ids.shape)}, the batch has {n} rows")


def _check_classes(a: Tensor, ids: Tensor, weight: Tensor) -> None:
    _check_ids(ids, len(a))
    if weight.ndim != 2 or len(weight) != a.shape[1]:
        raise ValueError(f"weight is {tuple(weight.shape)}, the rows have {a.shape[1]} dims; it must be (d, n_classes)")
    low, high = ids.min().item(), ids.max().item()
    if low < 0 or high >= weight.shape[1]:
        raise ValueError(f"ids reach from {low} to {high}, weight has {weight.shape[1]} classes")


def _check_maps(image_maps: Tensor, sound_maps: Tensor) -> None:
    if image_maps.ndim not in (3, 4) or sound_maps.ndim != 3 or image_maps.shape[1] != sound_maps.shape[1]:
        shapes = tuple(image_maps.shape), tuple(sound_maps.shape)
        raise ValueError(f"maps are {shapes[0]} and {shapes[1]}; they must be (n, d, h, w) or (n, d, p), and (m, d, t)")


# cmpm and cmpc give two losses, one for each direction
LOSSES: dict[str, Callable[..., Any]] = {
    "ranking": ranking,
    "hardest_negative": hardest_negative,
    "semi_hard": semi_hard,
    "sampled_impostors": sampled_impostors,
    "info_nce": info_nce,
    "sigmoid": sigmoid,
    "cmpm": cmpm,
    "cmpc": cmpc,
    "kl_transfer": kl_transfer,
    "reconstruction": reconstruction,
}
