"""The losses of pairs and of class logits against double loops, cases worked by hand, and their gradients."""

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional

from xmr.train.losses import (
    LOSSES,
    cmpc,
    cmpm,
    hardest_negative,
    info_nce,
    kl_transfer,
    matchmap_similarity,
    ranking,
    reconstruction,
    sampled_impostors,
    semi_hard,
    sigmoid,
    similarities,
)

IDS = torch.tensor([0, 1, 0, 2, 1])  # rows 0 and 2, rows 1 and 4 belong together
MEASURES = {
    "dot": lambda x, y: sum(p * q for p, q in zip(x, y, strict=True)),
    "order": lambda x, y: -math.sqrt(sum(max(0.0, q - p) ** 2 for p, q in zip(x, y, strict=True))),
}
# three images (rows) against three sounds
SCORES = torch.tensor([[2.0, 1.5, 3.0], [-1.0, 0.5, -2.0], [0.0, 4.0, 1.0]])


def unit_rows(seed: int, n_rows: int = 5, dim: int = 4) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return functional.normalize(torch.randn(n_rows, dim, generator=generator, dtype=torch.float64), dim=1)


def naive_ranking(a: Tensor, b: Tensor, ids: list[int], margin: float, both_ways: bool, similarity: str) -> float:
    def score(i: int, j: int) -> float:
        return MEASURES[similarity](a[i].tolist(), b[j].tolist())

    loss = 0.0
    for i in range(len(a)):
        for j in range(len(a)):
            if ids[i] != ids[j]:
                loss += max(0.0, margin - score(i, i) + score(i, j))
                loss += max(0.0, margin - score(i, i) + score(j, i)) if both_ways else 0.0
    return loss


def naive_info_nce(a: Tensor, b: Tensor, ids: list[int], temperature: float) -> float:
    def row_loss(x: Tensor, y: Tensor, i: int) -> float:
        rivals = [j for j in range(len(x)) if j == i or ids[j] != ids[i]]
        logits = {j: float(x[i] @ y[j]) / temperature for j in rivals}
        return math.log(sum(math.exp(value) for value in logits.values())) - logits[i]

    return sum(row_loss(a, b, i) + row_loss(b, a, i) for i in range(len(a))) / (2 * len(a))


def naive_hardest(scores: list[list[float]], ids: list[int], margin: float, n_hardest: int) -> float:
    loss = 0.0
    for i in range(len(scores)):
        others = [j for j in range(len(scores)) if ids[j] != ids[i]]
        for negatives in ([scores[i][j] for j in others], [scores[j][i] for j in others]):
            hardest = sorted(negatives, reverse=True)[:n_hardest]
            loss += sum(max(0.0, margin - scores[i][i] + negative) for negative in hardest)
    return loss


def naive_dsve(scores: list[list[float]], margin: float, n_hardest: int) -> float:
    n, loss = len(scores), 0.0
    less = [[scores[i][j] - (2 * scores[i][i] if i == j else 0) for j in range(n)] for i in range(n)]
    for i in range(n):
        for candidates in (less[i], [row[i] for row in less]):
            hardest = sorted(candidates, reverse=True)[:n_hardest]
            loss += sum(max(0.0, margin - scores[i][i] + candidate) for candidate in hardest)
    return loss


def naive_semi_hard(scores: list[list[float]], ids: list[int], margin: float, faithful: bool) -> float:
    n, loss = len(scores), 0.0
    for i in range(n):
        for against in (scores[i], [row[i] for row in scores]):
            below = [against[j] for j in range(n) if ids[j] != ids[i] and against[j] < scores[i][i]]
            below += [0.0] if faithful else []  # the pair's own place at least is masked to 0
            loss += max(0.0, margin - scores[i][i] + max(below)) if below else 0.0
    return loss / n


@pytest.mark.parametrize("similarity", ["dot", "order"])
def test_similarities_match_a_double_loop(similarity: str) -> None:
    a, b = unit_rows(0), unit_rows(1, n_rows=3)
    expected = [[MEASURES[similarity](x.tolist(), y.tolist()) for y in b] for x in a]
    torch.testing.assert_close(similarities(a, b, similarity), torch.tensor(expected, dtype=torch.float64))


@pytest.mark.parametrize("ids", [None, IDS], ids=["no ids", "ids"])
@pytest.mark.parametrize("both_ways", [True, False])
@pytest.mark.parametrize("similarity", ["dot", "order"])
def test_ranking_matches_a_double_loop(similarity: str, both_ways: bool, ids: Tensor | None) -> None:
    a, b = unit_rows(2), unit_rows(3)
    named = list(range(5)) if ids is None else ids.tolist()
    expected = naive_ranking(a, b, named, 0.3, both_ways, similarity)
    assert ranking(a, b, ids, 0.3, both_ways, similarity).item() == pytest.approx(expected, rel=1e-12)


def test_ranking_of_two_pairs_worked_by_hand() -> None:
    a = torch.tensor([[1.0, 0.0], [0.6, 0.8]])
    b = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    # scores: 1 0 / 0.6 0.8; a ranks b: 0 and 0.2 - 0.8 + 0.6 = 0; b ranks a: 0.2 - 1 + 0.6 and 0.2 - 0.8 + 0, both < 0
    assert ranking(a, b).item() == pytest.approx(0.0, abs=1e-6)
    # at 0.5: a ranks b 0, 0.3; b ranks a 0.1, 0
    assert ranking(a, b, margin=0.5, both_ways=False).item() == pytest.approx(0.3)
    assert ranking(a, b, margin=0.5).item() == pytest.approx(0.4)


def test_ranking_by_order_is_not_symmetric() -> None:
    general, special = torch.tensor([[0.0, 0.0]]), torch.tensor([[3.0, 4.0]])
    assert similarities(special, general, "order").item() == 0
    assert similarities(general, special, "order").item() == -5


def test_order_in_blocks_is_order_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    a, b = unit_rows(15), unit_rows(16, n_rows=3)
    whole = similarities(a, b, "order")
    monkeypatch.setattr("xmr.train.losses.scores.BLOCK_ELEMENTS", 2 * b.numel())
    torch.testing.assert_close(similarities(a, b, "order"), whole, rtol=0, atol=0)


def test_order_keeps_no_differences_for_the_gradient() -> None:
    a, b = (unit_rows(seed, n_rows=16, dim=32).requires_grad_() for seed in (17, 18))
    kept: list[int] = []

    def keep(tensor: Tensor) -> Tensor:
        kept.append(tensor.numel())
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        loss = similarities(a, b, "order").square().sum()
    loss.backward()
    assert max(kept) == 16 * 32  # the rows; all differences are 16 * 16 * 32
    assert b.grad is not None
    assert b.grad.any()


@pytest.mark.parametrize("ids", [None, IDS], ids=["no ids", "ids"])
@pytest.mark.parametrize("similarity", ["dot", "order"])
@pytest.mark.parametrize("n_hardest", [1, 2, 9])
def test_hardest_negative_matches_a_double_loop(n_hardest: int, similarity: str, ids: Tensor | None) -> None:
    a, b = unit_rows(19), unit_rows(20)
    named = list(range(5)) if ids is None else ids.tolist()
    expected = naive_hardest(similarities(a, b, similarity).tolist(), named, 0.3, n_hardest)
    found = hardest_negative(a, b, ids, 0.3, n_hardest, similarity=similarity)
    assert found.item() == pytest.approx(expected, rel=1e-12)


def test_hardest_negative_of_three_pairs_worked_by_hand() -> None:
    scores = torch.tensor([[0.9, 0.8, 0.1], [0.3, 0.5, 0.6], [0.2, 0.4, 0.7]])
    # rows: 0.2 - 0.9 + 0.8, 0.2 - 0.5 + 0.6, 0.2 - 0.7 + 0.4 < 0; columns: < 0, 0.2 - 0.5 + 0.8, 0.2 - 0.7 + 0.6
    assert hardest_negative(scores, torch.eye(3)).item() == pytest.approx(0.1 + 0.3 + 0.5 + 0.1)
    # of the second hardest only the second column's counts: 0.2 - 0.5 + 0.4
    assert hardest_negative(scores, torch.eye(3), n_hardest=2).item() == pytest.approx(1.1)


def test_hardest_negative_makes_a_pair_below_0_its_own_negative_as_dsve_does() -> None:
    scores = torch.tensor([[-0.3, -0.9], [-0.9, 0.5]])
    assert hardest_negative(scores, torch.eye(2)).item() == 0
    # the diagonal less twice itself is 0.3 and -0.5: the first pair costs 0.2 + 0.3 + 0.3, its column the same
    assert hardest_negative(scores, torch.eye(2), diagonal="dsve").item() == pytest.approx(1.6)


@pytest.mark.parametrize("n_hardest", [1, 2, 9])
def test_hardest_negative_by_dsve_matches_a_double_loop(n_hardest: int) -> None:
    a, b = unit_rows(21), unit_rows(22)
    assert (a * b).sum(dim=1).lt(0).any()
    expected = naive_dsve((a @ b.T).tolist(), 0.3, n_hardest)
    found = hardest_negative(a, b, margin=0.3, n_hardest=n_hardest, diagonal="dsve")
    assert found.item() == pytest.approx(expected, rel=1e-12)


def test_hardest_negative_by_dsve_leaves_out_the_other_rows_of_an_id() -> None:
    a, b = unit_rows(23).abs(), unit_rows(24).abs()  # every pair scores above 0, so that no pair is its own negative
    masked = hardest_negative(a, b, IDS, n_hardest=2)
    assert hardest_negative(a, b, IDS, n_hardest=2, diagonal="dsve").item() == pytest.approx(masked.item(), rel=1e-12)


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**31), named=st.lists(st.integers(0, 3), min_size=1, max_size=7))
def test_hardest_negative_with_every_negative_is_the_ranking_loss(seed: int, named: list[int]) -> None:
    a, b = unit_rows(seed, len(named)), unit_rows(seed + 1, len(named))
    ids = torch.tensor(named)
    whole = ranking(a, b, ids, 0.5).item()
    assert hardest_negative(a, b, ids, 0.5, n_hardest=len(named)).item() == pytest.approx(whole, rel=1e-12)
    assert hardest_negative(a, b, ids, 0.5).item() <= whole + 1e-12


def test_semi_hard_of_three_pairs_worked_by_hand() -> None:
    # rows: 1 - 2 + 1.5; 1 - 0.5 - 1 < 0; 1 - 1 + 0. columns: 1 - 2 + 0 < 0; nothing is below 0.5; 1 - 1 - 2 < 0
    assert semi_hard(SCORES).item() == pytest.approx(0.5 / 3)
    # against a score of 0, the second row costs 1 - 0.5, and so does the second column
    assert semi_hard(SCORES, faithful=True).item() == pytest.approx((0.5 + 0.5 + 0.5) / 3)


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**31), named=st.lists(st.integers(0, 3), min_size=1, max_size=7), faithful=st.booleans())
def test_semi_hard_matches_a_double_loop(seed: int, named: list[int], faithful: bool) -> None:
    scores = unit_rows(seed, len(named), len(named))
    expected = naive_semi_hard(scores.tolist(), named, 0.4, faithful)
    assert semi_hard(scores, torch.tensor(named), 0.4, faithful).item() == pytest.approx(expected, abs=1e-12)


def test_sampled_impostors_worked_by_hand() -> None:
    draws = torch.tensor([1, 2, 0]), torch.tensor([2, 0, 1])
    # images: 1 - 2 - 1 < 0, 1 - 0.5 + 4, 1 - 1 + 3; sounds: 1 - 2 + 3, 1 - 0.5 - 1 < 0, 1 - 1 + 4
    assert sampled_impostors(SCORES, draws=draws).item() == pytest.approx((4.5 + 3 + 2 + 4) / 3)


def test_sampled_impostors_matches_a_double_loop() -> None:
    scores = unit_rows(25, 5, 5)
    images, sounds = [2, 0, 3, 0, 2], [4, 2, 1, 1, 0]  # image 2 has the id of row 0
    expected = 0.0
    for i, (k, m) in enumerate(zip(images, sounds, strict=True)):
        positive = scores[i, i].item()
        expected += max(0.0, 0.7 - positive + scores[k, i].item()) if IDS[k] != IDS[i] else 0.0
        expected += max(0.0, 0.7 - positive + scores[i, m].item()) if IDS[m] != IDS[i] else 0.0
    found = sampled_impostors(scores, IDS, 0.7, draws=(torch.tensor(images), torch.tensor(sounds)))
    assert found.item() == pytest.approx(expected / 5, rel=1e-12)


def test_sampled_impostors_draws_only_among_other_ids() -> None:
    scores = torch.tensor([[0.0, 9, 9, 1], [9, 0, 9, 1], [9, 9, 0, 1], [2, 2, 2, 0]])
    for seed in range(20):  # whatever is drawn, an image of the last row scores 2 and a sound of it 1
        generator = torch.Generator().manual_seed(seed)
        loss = sampled_impostors(scores, torch.tensor([0, 0, 0, 1]), generator=generator)
        assert loss.item() == (3 * ((1 + 2) + (1 + 1)) + (1 + 1) + (1 + 2)) / 4


def test_sampled_impostors_is_on_average_the_mean_over_all_impostors() -> None:
    scores = unit_rows(26, 4, 4)
    expected = ranking(scores, torch.eye(4, dtype=scores.dtype), margin=1.0).item() / (4 * 3)
    generator = torch.Generator().manual_seed(0)
    drawn = [sampled_impostors(scores, generator=generator).item() for _ in range(2000)]
    assert sum(drawn) / len(drawn) == pytest.approx(expected, rel=0.02)


def test_sampled_impostors_repeats_with_its_generator() -> None:
    scores = unit_rows(27, 8, 8)
    first, second = (sampled_impostors(scores, generator=torch.Generator().manual_seed(3)).item() for _ in range(2))
    assert first == second


@pytest.mark.parametrize("ids", [None, IDS], ids=["no ids", "ids"])
def test_info_nce_matches_a_double_loop(ids: Tensor | None) -> None:
    a, b = unit_rows(4), unit_rows(5)
    named = list(range(5)) if ids is None else ids.tolist()
    assert info_nce(a, b, ids, 0.2).item() == pytest.approx(naive_info_nce(a, b, named, 0.2), rel=1e-12)


def test_info_nce_of_equal_rows_is_the_log_of_the_batch() -> None:
    rows = torch.tensor([[0.6, 0.8]]).repeat(7, 1)
    assert info_nce(rows, rows).item() == pytest.approx(math.log(7), rel=1e-6)


@pytest.mark.parametrize(
    "loss",
    [
        ranking,
        hardest_negative,
        info_nce,
        lambda a, b, ids: semi_hard(a @ b.T, ids),
        lambda a, b, ids: sampled_impostors(a @ b.T, ids),
    ],
    ids=["ranking", "hardest_negative", "info_nce", "semi_hard", "sampled_impostors"],
)
def test_rows_of_one_id_are_no_negatives_of_one_another(loss: Callable[..., Tensor]) -> None:
    assert loss(unit_rows(6), unit_rows(7), torch.zeros(5, dtype=torch.long)).item() == 0


@pytest.mark.parametrize(
    "loss",
    [
        ranking,
        partial(ranking, similarity="order"),
        hardest_negative,
        partial(hardest_negative, diagonal="dsve", n_hardest=3),
        lambda a, b: semi_hard(a @ b.T),
        lambda a, b: sampled_impostors(a @ b.T),
        partial(info_nce, temperature=0.01),
    ],
    ids=str,
)
def test_a_perfect_batch_costs_nothing(loss: Callable[..., Tensor]) -> None:
    rows = torch.eye(6)
    assert loss(rows, rows).item() == 0


@pytest.mark.parametrize("ids", [None, IDS], ids=["no ids", "ids"])
def test_sigmoid_matches_a_double_loop(ids: Tensor | None) -> None:
    a, b = unit_rows(28), unit_rows(29)
    named = list(range(5)) if ids is None else ids.tolist()
    expected = 0.0
    for i in range(5):
        for j in range(5):
            sign = 1 if named[i] == named[j] else -1
            expected += math.log1p(math.exp(-sign * (float(a[i] @ b[j]) / 0.3 - 2.0)))
    assert sigmoid(a, b, ids, 0.3, -2.0).item() == pytest.approx(expected / 5, rel=1e-12)


def test_sigmoid_of_two_pairs_worked_by_hand() -> None:
    # logits: 1 for a pair, 0 for the others
    found = sigmoid(torch.eye(2), torch.eye(2), temperature=1.0, bias=0.0)
    assert found.item() == pytest.approx(math.log(1 + math.exp(-1)) + math.log(2))
    together = sigmoid(torch.eye(2), torch.eye(2), torch.tensor([4, 4]), temperature=1.0, bias=0.0)
    assert together.item() == pytest.approx(found.item())  # -log of 1/2 is the same for a positive as for a negative


def test_kl_transfer_matches_a_double_loop() -> None:
    logits = 3 * unit_rows(8)
    teacher = torch.softmax(5 * unit_rows(9), dim=1)
    student = torch.softmax(logits, dim=1)
    expected = sum(
        float(p) * math.log(float(p) / float(q))
        for wanted, given in zip(teacher, student, strict=True)
        for p, q in zip(wanted, given, strict=True)
    )
    assert kl_transfer(logits, teacher).item() == pytest.approx(expected, rel=1e-12)


def test_kl_transfer_worked_by_hand() -> None:
    teacher = torch.tensor([[1.0, 0.0], [0.5, 0.5]])
    # a student that knows nothing: KL is log 2 to a certain teacher, 0 to one that knows nothing either
    assert kl_transfer(torch.zeros(2, 2), teacher).item() == pytest.approx(math.log(2))


def test_kl_transfer_is_0_where_the_student_agrees() -> None:
    logits = 4 * unit_rows(10)
    assert kl_transfer(logits, logits.softmax(dim=1)).item() == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize(
    "loss",
    [
        partial(ranking, ids=IDS, margin=0.5),
        partial(ranking, ids=IDS, margin=0.5, both_ways=False),
        partial(ranking, ids=IDS, margin=0.5, similarity="order"),
        partial(hardest_negative, ids=IDS, margin=0.5, n_hardest=2),
        partial(hardest_negative, margin=0.5, n_hardest=2, diagonal="dsve"),
        partial(hardest_negative, ids=IDS, margin=0.5, similarity="order"),
        lambda a, b: semi_hard(a @ b.T, IDS),
        lambda a, b: semi_hard(a @ b.T, IDS, 0.3, faithful=True),
        lambda a, b: sampled_impostors(a @ b.T, IDS, generator=torch.Generator().manual_seed(0)),
        partial(info_nce, ids=IDS, temperature=0.5),
        partial(sigmoid, ids=IDS, temperature=0.5, bias=-1.0),
        lambda a, b: kl_transfer(a, b.softmax(dim=1)),
    ],
    ids=[
        "ranking",
        "ranking one way",
        "ranking order",
        "hardest_negative",
        "hardest_negative dsve",
        "hardest_negative order",
        "semi_hard",
        "semi_hard faithful",
        "sampled_impostors",
        "info_nce",
        "sigmoid",
        "kl_transfer",
    ],
)
def test_gradients_match_finite_differences(loss: Callable[..., Tensor]) -> None:
    a, b = (unit_rows(seed).requires_grad_() for seed in (11, 12))
    assert torch.autograd.gradcheck(loss, (a, b))


def test_temperature_and_bias_can_learn() -> None:
    a, b = unit_rows(30), unit_rows(31)
    temperature, bias = (torch.tensor(value, dtype=torch.float64, requires_grad=True) for value in (0.4, -1.0))
    assert torch.autograd.gradcheck(lambda t: info_nce(a, b, IDS, t), (temperature,))
    assert torch.autograd.gradcheck(lambda t, shift: sigmoid(a, b, IDS, t, shift), (temperature, bias))


EVERY_LOSS: dict[str, Callable[[Tensor, Tensor, Tensor], Tensor]] = {
    "ranking": ranking,
    "ranking order": partial(ranking, similarity="order"),
    "hardest_negative": hardest_negative,
    "hardest_negative of 3": partial(hardest_negative, n_hardest=3),
    "hardest_negative dsve": partial(hardest_negative, diagonal="dsve"),
    "hardest_negative order": partial(hardest_negative, similarity="order"),
    "semi_hard": lambda a, b, ids: semi_hard(a @ b.T, ids),
    "semi_hard faithful": lambda a, b, ids: semi_hard(a @ b.T, ids, faithful=True),
    "sampled_impostors": lambda a, b, ids: sampled_impostors(a @ b.T, ids),
    "MISA": lambda a, b, ids: semi_hard(matchmap_similarity(a[..., None], b[..., None]), ids),
    "SIMA": lambda a, b, ids: semi_hard(matchmap_similarity(a[..., None], b[..., None], kind="SIMA"), ids),
    "info_nce": info_nce,
    "sigmoid": sigmoid,
    "cmpm": lambda a, b, ids: torch.stack(cmpm(a, b, ids)).sum(),
    "cmpc": lambda a, b, ids: torch.stack(cmpc(a, b, ids, torch.eye(a.shape[1], 8))).sum(),
    "kl_transfer": lambda a, b, ids: kl_transfer(a, b.detach().softmax(dim=1)),
    "reconstruction of 2": lambda a, b, ids: reconstruction([a, b], smooth=6.0),
    "reconstruction of 3": lambda a, b, ids: reconstruction([a, b, a], smooth=4.0),
    "reconstruction of 3 by source": lambda a, b, ids: reconstruction([a, b, a], 4.0, "source"),
}
BATCHES = {
    "equal rows": (torch.full((5, 4), 0.5), torch.full((5, 4), 0.5), torch.arange(5)),
    "opposite rows": (torch.full((5, 4), 0.5), torch.full((5, 4), -0.5), torch.arange(5)),
    "zero rows": (torch.zeros(5, 4), torch.zeros(5, 4), torch.arange(5)),
    "one zero row": (torch.eye(4), torch.eye(4) - torch.diag(torch.tensor([0.0, 0, 0, 1])), torch.arange(4)),
    "two rows": (unit_rows(32, 2).float(), unit_rows(33, 2).float(), torch.arange(2)),
    "one id": (unit_rows(34).float(), unit_rows(35).float(), torch.full((5,), 3)),
    "long rows": (1000 * unit_rows(36).float(), 1000 * unit_rows(37).float(), IDS),
}


@pytest.mark.parametrize("batch", BATCHES.values(), ids=BATCHES)
@pytest.mark.parametrize("loss", EVERY_LOSS.values(), ids=EVERY_LOSS)
def test_losses_and_gradients_are_finite(
    loss: Callable[[Tensor, Tensor, Tensor], Tensor], batch: tuple[Tensor, Tensor, Tensor]
) -> None:
    a, b = (rows.clone().requires_grad_() for rows in batch[:2])
    value = loss(a, b, batch[2])
    value.backward()
    assert value.shape == ()
    for gradient in (a.grad, b.grad):
        assert gradient is None or gradient.isfinite().all()
    assert value.isfinite()


@pytest.mark.parametrize("name", [name for name in EVERY_LOSS if name != "sampled_impostors"])
def test_the_order_of_a_batch_does_not_matter(name: str) -> None:
    a, b = unit_rows(38).float(), unit_rows(39).float()
    shuffled = torch.tensor([3, 1, 4, 0, 2])
    expected = EVERY_LOSS[name](a, b, IDS).item()
    assert EVERY_LOSS[name](a[shuffled], b[shuffled], IDS[shuffled]).item() == pytest.approx(expected, rel=1e-5)


ROWS, FEWER, NARROW = torch.zeros(5, 4), torch.zeros(3, 4), torch.zeros(5, 2)
WRONG_USE: dict[str, tuple[Callable[[], Any], str]] = {
    "ranking rows": (lambda: ranking(ROWS, FEWER), r"\(5, 4\) and \(3, 4\)"),
    "ranking ids": (lambda: ranking(ROWS, ROWS, IDS[:3]), r"ids are \(3,\), the batch has 5 rows"),
    "ranking kind": (lambda: ranking(ROWS, ROWS, similarity="cosine"), "'cosine' found; it is 'dot' or 'order'"),
    "similarities": (lambda: similarities(ROWS, NARROW), r"a is \(5, 4\), b is \(5, 2\)"),
    "hardest rows": (lambda: hardest_negative(ROWS, FEWER), r"\(5, 4\) and \(3, 4\)"),
    "n_hardest": (lambda: hardest_negative(ROWS, ROWS, n_hardest=0), "n_hardest is 0; it is at least 1"),
    "diagonal": (lambda: hardest_negative(ROWS, ROWS, diagonal="eye"), "'eye' found; it is 'mask' or 'dsve'"),
    "semi_hard": (lambda: semi_hard(ROWS), r"scores are \(5, 4\)"),
    "sampled scores": (lambda: sampled_impostors(ROWS), r"scores are \(5, 4\)"),
    "sampled draws": (
        lambda: sampled_impostors(SCORES, draws=(IDS, IDS)),
        r"draws are \(5,\) and \(5,\), the batch has 3 rows",
    ),
    "info_nce": (lambda: info_nce(ROWS, NARROW), r"\(5, 4\) and \(5, 2\)"),
    "sigmoid": (lambda: sigmoid(ROWS, ROWS, IDS[:2]), r"ids are \(2,\), the batch has 5 rows"),
    "kl_transfer": (lambda: kl_transfer(ROWS, NARROW), r"\(5, 4\), teacher_probabilities \(5, 2\)"),
}


@pytest.mark.parametrize(("use", "sentence"), WRONG_USE.values(), ids=WRONG_USE)
def test_wrong_use_names_what_was_found(use: Callable[[], Any], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        use()


def test_info_nce_sends_no_gradient_to_what_the_ids_leave_out() -> None:
    a, b = unit_rows(13, n_rows=3), unit_rows(14, n_rows=3).requires_grad_()
    info_nce(a[:2], b[:2], torch.tensor([0, 0])).backward()
    assert b.grad is not None
    assert not b.grad.any()


def test_every_loss_is_found_by_its_name() -> None:
    assert {name: loss.__name__ for name, loss in LOSSES.items()} == {name: name for name in LOSSES}
    assert set(LOSSES) == {
        "ranking",
        "hardest_negative",
        "semi_hard",
        "sampled_impostors",
        "info_nce",
        "sigmoid",
        "cmpm",
        "cmpc",
        "kl_transfer",
        "reconstruction",
    }
