"""The losses against double loops, cases worked by hand, and their gradients."""

import math
from collections.abc import Callable
from functools import partial

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from xmr.train.losses import LOSSES, info_nce, kl_transfer, ranking, similarities

IDS = torch.tensor([0, 1, 0, 2, 1])  # rows 0 and 2, rows 1 and 4 belong together
MEASURES = {
    "dot": lambda x, y: sum(p * q for p, q in zip(x, y, strict=True)),
    "order": lambda x, y: -sum(max(0.0, q - p) ** 2 for p, q in zip(x, y, strict=True)),
}


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
    assert similarities(general, special, "order").item() == -25


@pytest.mark.parametrize("ids", [None, IDS], ids=["no ids", "ids"])
def test_info_nce_matches_a_double_loop(ids: Tensor | None) -> None:
    a, b = unit_rows(4), unit_rows(5)
    named = list(range(5)) if ids is None else ids.tolist()
    assert info_nce(a, b, ids, 0.2).item() == pytest.approx(naive_info_nce(a, b, named, 0.2), rel=1e-12)


def test_info_nce_of_equal_rows_is_the_log_of_the_batch() -> None:
    rows = torch.tensor([[0.6, 0.8]]).repeat(7, 1)
    assert info_nce(rows, rows).item() == pytest.approx(math.log(7), rel=1e-6)


@pytest.mark.parametrize("loss", [ranking, info_nce])
def test_rows_of_one_id_are_no_negatives_of_one_another(loss: Callable[..., Tensor]) -> None:
    assert loss(unit_rows(6), unit_rows(7), torch.zeros(5, dtype=torch.long)).item() == 0


@pytest.mark.parametrize(
    "loss", [ranking, partial(ranking, similarity="order"), partial(info_nce, temperature=0.01)], ids=str
)
def test_a_perfect_batch_costs_nothing(loss: Callable[..., Tensor]) -> None:
    rows = torch.eye(6)
    assert loss(rows, rows).item() == 0


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
        partial(info_nce, ids=IDS, temperature=0.5),
        lambda a, b: kl_transfer(a, b.softmax(dim=1)),
    ],
    ids=["ranking", "ranking one way", "ranking order", "info_nce", "kl_transfer"],
)
def test_gradients_match_finite_differences(loss: Callable[..., Tensor]) -> None:
    a, b = (unit_rows(seed).requires_grad_() for seed in (11, 12))
    assert torch.autograd.gradcheck(loss, (a, b))


def test_info_nce_sends_no_gradient_to_what_the_ids_leave_out() -> None:
    a, b = unit_rows(13, n_rows=3), unit_rows(14, n_rows=3).requires_grad_()
    info_nce(a[:2], b[:2], torch.tensor([0, 0])).backward()
    assert b.grad is not None
    assert not b.grad.any()


def test_every_loss_is_found_by_its_name() -> None:
    assert {name: loss.__name__ for name, loss in LOSSES.items()} == {name: name for name in LOSSES}
    assert {"ranking", "info_nce", "kl_transfer"} <= set(LOSSES)
