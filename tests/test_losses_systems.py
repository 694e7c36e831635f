"""Projection matching and classification, reconstruction, and matchmaps against double loops and by hand."""

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from xmr.train.losses import cmpc, cmpm, matchmap, matchmap_similarity, reconstruction

IDS = torch.tensor([0, 1, 0, 2, 1])
KINDS = ["SISA", "MISA", "SIMA"]


def normal(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def dot(x: list[float], y: list[float]) -> float:
    return sum(p * q for p, q in zip(x, y, strict=True))


def unit(x: list[float]) -> list[float]:
    return [value / math.sqrt(dot(x, x)) for value in x]


def softmax(values: list[float]) -> list[float]:
    powers = [math.exp(value) for value in values]
    return [power / sum(powers) for power in powers]


def naive_cmpm(a: list[list[float]], b: list[list[float]], ids: list[int]) -> float:
    loss = 0.0
    for i, row in enumerate(a):
        p = softmax([dot(row, unit(other)) for other in b])
        for j in range(len(b)):
            q = (ids[i] == ids[j]) / ids.count(ids[i])
            loss += p[j] * math.log(1e-8 + p[j] / (q + 1e-8))
    return loss / len(a)


def naive_cmpc(
    a: list[list[float]], b: list[list[float]], ids: list[int], weight: list[list[float]], smoothing: float
) -> float:
    columns = [unit(list(column)) for column in zip(*weight, strict=True)]
    loss = 0.0
    for x, z, wanted in zip(a, b, ids, strict=True):
        projected = [dot(x, unit(z)) * value for value in unit(z)]
        p = softmax([dot(projected, column) for column in columns])
        for c in range(len(columns)):
            loss -= ((1 - smoothing) * (c == wanted) + smoothing / len(columns)) * math.log(p[c])
    return loss / len(a)


def naive_weights(scores: list[list[float]], smooth: float) -> list[list[float]]:
    leaky = [[value if value > 0 else 0.1 * value for value in row] for row in scores]
    return [softmax([smooth * value / (math.sqrt(dot(row, row)) + 1e-8) for value in row]) for row in leaky]


def naive_rebuild(features: list[list[list[float]]], smooth: float, over_sources: bool) -> list[list[list[float]]]:
    rebuilt = []
    for i, target in enumerate(features):
        sources = [row for j, rows in enumerate(features) if j != i for row in rows]
        if over_sources:
            weights = naive_weights([[dot(t, o) for o in sources] for t in target], smooth)
        else:
            of_sources = naive_weights([[dot(o, t) for t in target] for o in sources], smooth)
            weights = [[row[t] for row in of_sources] for t in range(len(target))]
        columns = [list(column) for column in zip(*sources, strict=True)]
        rebuilt.append([[dot(row, column) for column in columns] for row in weights])
    return rebuilt


def naive_reconstruction(features: list[list[list[float]]], smooth: float, over_sources: bool) -> float:
    twice = naive_rebuild(naive_rebuild(features, smooth, over_sources), smooth, over_sources)
    return sum(
        (p - q) ** 2
        for rows, again in zip(features, twice, strict=True)
        for x, y in zip(rows, again, strict=True)
        for p, q in zip(x, y, strict=True)
    )


def naive_similarity(places: list[list[float]], frames: list[list[float]], kind: str) -> float:
    """Of one image and one sound."""
    fits = [[dot(place, frame) for frame in frames] for place in places]
    if kind == "MISA":
        return sum(max(row[t] for row in fits) for t in range(len(frames))) / len(frames)
    if kind == "SIMA":
        return sum(max(row) for row in fits) / len(places)
    return sum(sum(row) for row in fits) / (len(places) * len(frames))


@pytest.mark.parametrize("ids", [None, IDS], ids=["no ids", "ids"])
def test_cmpm_matches_a_double_loop(ids: Tensor | None) -> None:
    a, b = normal(0, 5, 4), normal(1, 5, 4)
    named = list(range(5)) if ids is None else ids.tolist()
    a_to_b, b_to_a = cmpm(a, b, ids)
    assert a_to_b.item() == pytest.approx(naive_cmpm(a.tolist(), b.tolist(), named), rel=1e-12)
    assert b_to_a.item() == pytest.approx(naive_cmpm(b.tolist(), a.tolist(), named), rel=1e-12)


def test_cmpm_of_two_pairs_worked_by_hand() -> None:
    a = torch.tensor([[math.log(3), 0.0], [0.0, 0.0]], dtype=torch.float64)
    b = torch.tensor([[2.0, 0.0], [0.0, 3.0]], dtype=torch.float64)  # unit rows: the axes
    # the first image chooses the texts with 3/4 and 1/4, the second with 1/2 each; both texts are right: q = 1/2
    of_one_id = (0.75 * math.log(1.5) + 0.25 * math.log(0.5)) / 2
    assert cmpm(a, b, torch.tensor([7, 7]))[0].item() == pytest.approx(of_one_id, abs=1e-7)
    # only its own text is right: q = 1 and 0, and 0 is taken for 1e-8
    apart = 0.75 * math.log(0.75) + 0.25 * math.log(0.25e8) + 0.5 * math.log(0.5) + 0.5 * math.log(0.5e8)
    assert cmpm(a, b)[0].item() == pytest.approx(apart / 2, abs=1e-7)


def test_cmpm_is_0_where_every_row_chooses_among_its_own_id() -> None:
    a = 1e3 * torch.eye(4).repeat_interleave(2, dim=0)
    for loss in cmpm(a, a, torch.arange(4).repeat_interleave(2)):
        assert loss.item() == pytest.approx(0, abs=1e-6)


def test_cmpm_does_not_care_how_long_the_other_side_is() -> None:
    a, b = normal(2, 5, 4), normal(3, 5, 4)
    assert cmpm(a, 9 * b, IDS)[0].item() == pytest.approx(cmpm(a, b, IDS)[0].item(), rel=1e-12)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_cmpc_matches_a_double_loop(smoothing: float) -> None:
    a, b, weight = normal(4, 5, 4), normal(5, 5, 4), normal(6, 4, 3)
    of_a, of_b = cmpc(a, b, IDS, weight, smoothing)
    lists = a.tolist(), b.tolist(), IDS.tolist(), weight.tolist()
    assert of_a.item() == pytest.approx(naive_cmpc(*lists, smoothing), rel=1e-12)
    assert of_b.item() == pytest.approx(naive_cmpc(lists[1], lists[0], *lists[2:], smoothing), rel=1e-12)


def test_cmpc_of_one_pair_worked_by_hand() -> None:
    a, b = torch.tensor([[2.0, 0.0]]), torch.tensor([[3.0, 4.0]])
    weight = torch.tensor([[2.0, 0.0], [0.0, 5.0]])  # unit columns: the axes
    of_a, of_b = cmpc(a, b, torch.tensor([1]), weight)
    # a on the direction (0.6, 0.8) of b is (0.72, 0.96); b on the direction of a is (3, 0)
    assert of_a.item() == pytest.approx(math.log(1 + math.exp(0.72 - 0.96)))
    assert of_b.item() == pytest.approx(math.log(1 + math.exp(3)))


@pytest.mark.parametrize("smooth", [1.0, 6.0])
def test_reconstruction_of_two_modalities_matches_a_double_loop(smooth: float) -> None:
    features = [normal(7, 4, 3), normal(8, 4, 3)]
    expected = naive_reconstruction([rows.tolist() for rows in features], smooth, over_sources=True)
    assert reconstruction(features, smooth).item() == pytest.approx(expected, rel=1e-10)
    assert reconstruction(features, smooth, "source").item() == pytest.approx(expected, rel=1e-10)


@pytest.mark.parametrize("weight_axis", ["target", "source"])
def test_reconstruction_of_three_modalities_matches_a_double_loop(weight_axis: str) -> None:
    features = [normal(seed, 4, 3) for seed in (9, 10, 11)]
    expected = naive_reconstruction([rows.tolist() for rows in features], 4.0, weight_axis == "source")
    assert reconstruction(features, 4.0, weight_axis).item() == pytest.approx(expected, rel=1e-10)


def test_reconstruction_of_one_row_of_three_worked_by_hand() -> None:
    image, speech, text = torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 1.0]]), torch.tensor([[1.0, 1.0]])
    # one target takes each source whole: once, an image is s + t; twice, (i + t) + (i + s), which is i + s + t too far
    assert reconstruction([image, speech, text], smooth=4.0).item() == pytest.approx(3 * 8)
    # blunt weights over the sources are 1/2: twice, an image is (2i + s + t) / 4, which is (2i - s - t) / 4 too short
    assert reconstruction([image, speech, text], 0.0, "source").item() == pytest.approx((5 + 5 + 2) / 16)


def test_reconstruction_of_one_row_of_two_is_the_row_itself() -> None:
    assert reconstruction([normal(12, 1, 4), normal(13, 1, 4)], smooth=6.0).item() == pytest.approx(0, abs=1e-24)


def test_blunt_reconstruction_is_the_mean_of_the_rows() -> None:
    features = [normal(14, 6, 3), normal(15, 6, 3)]
    expected = sum((rows - rows.mean(dim=0)).square().sum().item() for rows in features)
    assert reconstruction(features, smooth=0.0).item() == pytest.approx(expected, rel=1e-12)


def test_matchmap_matches_a_double_loop() -> None:
    images, sounds = normal(16, 3, 4, 2, 5), normal(17, 3, 4, 6)
    expected = torch.empty(3, 2, 5, 6, dtype=torch.float64)
    for i in range(3):
        for y in range(2):
            for x in range(5):
                for t in range(6):
                    expected[i, y, x, t] = dot(images[i, :, y, x].tolist(), sounds[i, :, t].tolist())
    torch.testing.assert_close(matchmap(images, sounds), expected)
    torch.testing.assert_close(matchmap(images.flatten(2), sounds), expected.flatten(1, 2))


@pytest.mark.parametrize("block_elements", [1, 1 << 22], ids=["an image at a time", "all at once"])
@pytest.mark.parametrize("kind", KINDS)
def test_matchmap_similarity_matches_a_double_loop(
    kind: str, block_elements: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("xmr.train.losses.scores.BLOCK_ELEMENTS", block_elements)
    images, sounds, n_frames = normal(18, 3, 4, 2, 5), normal(19, 4, 4, 6), torch.tensor([6, 2, 1, 4])
    expected = [
        [
            naive_similarity(image.flatten(1).T.tolist(), sound[:, :n].T.tolist(), kind)
            for sound, n in zip(sounds, n_frames.tolist(), strict=True)
        ]
        for image in images
    ]
    found = matchmap_similarity(images, sounds, n_frames, kind)
    torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float64))


@pytest.mark.parametrize(("kind", "expected"), [("SISA", 1.5), ("MISA", 8 / 3), ("SIMA", 3.0)])
def test_matchmap_similarity_worked_by_hand(kind: str, expected: float) -> None:
    places = torch.tensor([[[1.0, 0.0], [0.0, 2.0]]])  # (1, d, p): (1, 0) and (0, 2)
    frames = torch.tensor([[[1.0, 3.0, 0.0, 9.0], [1.0, 0.0, 1.5, 9.0]]])  # the fourth is past the end
    # the first place fits the frames 1, 3, 0; the second 2, 0, 3
    assert matchmap_similarity(places, frames, torch.tensor([3]), kind).item() == pytest.approx(expected)


@pytest.mark.parametrize("kind", KINDS)
def test_matchmap_similarity_without_n_frames_takes_every_frame(kind: str) -> None:
    images, sounds = normal(20, 2, 3, 4), normal(21, 3, 3, 5)
    whole = matchmap_similarity(images, sounds, torch.tensor([5, 5, 5]), kind)
    torch.testing.assert_close(matchmap_similarity(images, sounds, None, kind), whole, rtol=0, atol=0)


@pytest.mark.parametrize("kind", KINDS)
def test_matchmap_similarity_of_a_sound_without_frames_takes_its_first(kind: str) -> None:
    images, sounds = normal(22, 2, 3, 4), normal(23, 1, 3, 5)
    first = matchmap_similarity(images, sounds, torch.tensor([1]), kind)
    torch.testing.assert_close(matchmap_similarity(images, sounds, torch.tensor([0]), kind), first)


def test_sisa_is_the_product_of_the_pooled_maps() -> None:
    images, sounds = normal(24, 3, 4, 2, 5), normal(25, 3, 4, 6)
    pooled = images.mean(dim=(2, 3)) @ sounds.mean(dim=2).T
    torch.testing.assert_close(matchmap_similarity(images, sounds, kind="SISA"), pooled)


def test_gradients_match_finite_differences() -> None:
    a, b, weight = (normal(seed, *shape).requires_grad_() for seed, shape in ((26, (5, 4)), (27, (5, 4)), (28, (4, 3))))
    assert torch.autograd.gradcheck(lambda x, y: cmpm(x, y, IDS), (a, b))
    assert torch.autograd.gradcheck(lambda x, y, w: cmpc(x, y, IDS, w, 0.1), (a, b, weight))


@pytest.mark.parametrize("weight_axis", ["target", "source"])
@pytest.mark.parametrize("n_modalities", [2, 3])
def test_gradients_of_reconstruction_match_finite_differences(n_modalities: int, weight_axis: str) -> None:
    features = [normal(29 + seed, 3, 4).requires_grad_() for seed in range(n_modalities)]
    assert torch.autograd.gradcheck(lambda *rows: reconstruction(rows, 4.0, weight_axis), features)


@pytest.mark.parametrize("kind", KINDS)
def test_gradients_of_matchmap_similarity_match_finite_differences(kind: str) -> None:
    images, sounds = normal(32, 2, 3, 4).requires_grad_(), normal(33, 2, 3, 5).requires_grad_()
    n_frames = torch.tensor([3, 5])
    assert torch.autograd.gradcheck(lambda x, y: matchmap_similarity(x, y, n_frames, kind), (images, sounds))


@pytest.mark.parametrize("kind", KINDS)
def test_what_follows_the_end_of_a_sound_has_no_gradient(kind: str) -> None:
    images, sounds = normal(34, 2, 3, 4), normal(35, 2, 3, 5).requires_grad_()
    matchmap_similarity(images, sounds, torch.tensor([3, 5]), kind).sum().backward()
    assert sounds.grad is not None
    assert not sounds.grad[0, :, 3:].any()
    assert sounds.grad[0, :, :3].any()


ROWS, WEIGHT = torch.zeros(5, 4), torch.zeros(4, 3)
MAPS, SOUNDS = torch.zeros(2, 4, 3, 3), torch.zeros(3, 4, 6)
WRONG_USE: dict[str, tuple[Callable[[], Any], str]] = {
    "cmpm rows": (lambda: cmpm(ROWS, ROWS[:3]), r"\(5, 4\) and \(3, 4\)"),
    "cmpm ids": (lambda: cmpm(ROWS, ROWS, IDS[:3]), r"ids are \(3,\), the batch has 5 rows"),
    "cmpc ids": (lambda: cmpc(ROWS, ROWS, IDS[:3], WEIGHT), r"ids are \(3,\), the batch has 5 rows"),
    "cmpc weight": (lambda: cmpc(ROWS, ROWS, IDS, WEIGHT.T), r"weight is \(3, 4\), the rows have 4 dims"),
    "cmpc classes": (lambda: cmpc(ROWS, ROWS, IDS, WEIGHT[:, :2]), "ids reach from 0 to 2, weight has 2 classes"),
    "cmpc below 0": (lambda: cmpc(ROWS, ROWS, IDS - 1, WEIGHT), "ids reach from -1 to 1, weight has 3 classes"),
    "one modality": (lambda: reconstruction([ROWS], 4.0), "1 modalities found; a reconstruction takes 2 or 3"),
    "four modalities": (lambda: reconstruction([ROWS] * 4, 4.0), "4 modalities found"),
    "modalities that differ": (lambda: reconstruction([ROWS, ROWS[:2]], 4.0), r"\(5, 4\) and \(2, 4\)"),
    "weight_axis": (lambda: reconstruction([ROWS, ROWS], 4.0, "rows"), "'rows' found; it is 'target' or 'source'"),
    "maps": (lambda: matchmap(MAPS, SOUNDS), "2 image maps and 3 sound maps"),
    "dims": (lambda: matchmap_similarity(MAPS, SOUNDS[:, :2]), r"\(2, 4, 3, 3\) and \(3, 2, 6\)"),
    "n_frames": (lambda: matchmap_similarity(MAPS, SOUNDS, IDS), r"n_frames are \(5,\), there are 3 sound maps"),
    "kind": (lambda: matchmap_similarity(MAPS, SOUNDS, None, "MAMA"), "'MAMA' found; it is 'SISA', 'MISA' or 'SIMA'"),
}


@pytest.mark.parametrize(("use", "sentence"), WRONG_USE.values(), ids=WRONG_USE)
def test_wrong_use_names_what_was_found(use: Callable[[], Any], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        use()
