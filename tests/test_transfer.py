"""Classifiers trained on one modality and tested on the others: by hand, by scikit-learn, and on rows of labels."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from xmr.engine.errors import XmrError
from xmr.train.datasets import Row
from xmr.train.evaluate import classifier_transfer
from xmr.train.evaluate.transfer import Classifier, labelled_items, transfer_task

pytest.importorskip("sklearn", reason="scikit-learn, which trains the classifiers, is not installed")

LABELS = ["bell", "dog", "rain"]


def clusters(n: int, seed: int = 0, noise: float = 0.1) -> tuple[NDArray[np.float64], list[str]]:
    """Rows near one axis a label."""
    random = np.random.default_rng(seed)
    numbers = np.arange(n) % len(LABELS)
    return np.eye(6)[numbers] + noise * random.normal(size=(n, 6)), [LABELS[number] for number in numbers]


def test_a_shared_space_transfers_from_every_modality_to_every_other() -> None:
    rows, labels = clusters(30)
    asked, known = clusters(12, seed=1)
    names = ("image", "sound", "text")
    table = classifier_transfer(dict.fromkeys(names, rows), labels, dict.fromkeys(names, asked), known)
    assert table == {source: dict.fromkeys(names, 100.0) for source in names}


def test_a_modality_in_a_space_of_its_own_does_not_transfer() -> None:
    rows, labels = clusters(30)
    turned = np.roll(rows, 1, axis=1)  # every label where another one is
    train, test = {"image": rows, "sound": turned}, {"image": rows, "sound": turned}
    table = classifier_transfer(train, labels, test, labels)
    assert table["image"]["image"] == table["sound"]["sound"] == 100.0
    assert table["image"]["sound"] < 40


def test_accuracy_worked_by_hand() -> None:
    rows = np.array([[1.0, 0.0], [1.0, 0.1], [0.0, 1.0], [0.1, 1.0]])
    asked = np.array([[2.0, 0.0], [3.0, 0.5], [0.0, 5.0], [9.0, 0.0]])
    table = classifier_transfer(
        {"image": rows}, ["a", "a", "b", "b"], {"sound": asked}, {"sound": ["a", "a", "b", "b"]}
    )
    assert table == {"image": {"sound": 75.0}}


def test_labels_can_be_given_by_modality() -> None:
    rows, labels = clusters(30)
    backwards, other = rows[::-1], labels[::-1]
    table = classifier_transfer(
        {"image": rows, "text": backwards[:9]},
        {"image": labels, "text": other[:9]},
        {"text": backwards},
        {"text": other},
    )
    assert table["image"]["text"] == table["text"]["text"] == 100.0


def test_lengths_of_rows_do_not_matter() -> None:
    rows, labels = clusters(30, noise=0.4)
    lengths = np.random.default_rng(3).uniform(0.01, 100, (30, 1))
    test = {"image": rows}
    of_unit, of_scaled = (classifier_transfer({"image": of}, labels, test, labels) for of in (rows, rows * lengths))
    assert of_unit == of_scaled


def test_a_classifier_is_the_one_of_scikit_learn_with_the_c_of_the_best_folds() -> None:
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import GridSearchCV, StratifiedKFold

    rows, labels = clusters(60, noise=0.8)
    asked, known = clusters(30, seed=1, noise=0.8)
    unit, unit_asked = (of / np.linalg.norm(of, axis=1, keepdims=True) for of in (rows, asked))
    folds = StratifiedKFold(3, shuffle=True, random_state=0)
    search = GridSearchCV(LogisticRegression(max_iter=300), {"C": [0.1, 1, 10, 100, 1000]}, cv=folds)
    search.fit(unit.astype(np.float32), labels)
    ours = Classifier.train("image", rows, labels)
    assert ours.strength == search.best_params_["C"]
    assert ours.accuracy(asked, known) == pytest.approx(
        100 * search.score(unit_asked.astype(np.float32), known), abs=1e-3
    )


def test_a_label_that_was_never_seen_counts_as_wrong() -> None:
    rows, labels = clusters(30)
    table = classifier_transfer({"image": rows}, labels, {"image": rows}, [*labels[:15], *["siren"] * 15])
    assert table["image"]["image"] == 50.0


def test_a_label_of_a_single_row_can_be_trained_on() -> None:
    table = classifier_transfer({"image": np.eye(2)}, ["a", "b"], {"image": np.eye(2)}, ["a", "b"])
    assert table == {"image": {"image": 100.0}}


def test_a_single_label_is_an_error_that_names_it() -> None:
    with pytest.raises(XmrError, match="all 3 training items of sound have the label dog; a classifier needs two"):
        classifier_transfer({"sound": np.eye(3)}, ["dog"] * 3, {"sound": np.eye(3)}, ["dog"] * 3)


@pytest.mark.parametrize(("n_train", "n_test"), [(2, 3), (3, 2)])
def test_as_many_labels_as_rows_are_needed(n_train: int, n_test: int) -> None:
    labels = ["a", "b", "c"]
    with pytest.raises(ValueError, match=r"3 rows .*2 labels found"):
        classifier_transfer({"text": np.eye(3)}, labels[:n_train], {"text": np.eye(3)}, labels[:n_test])


def row(name: str, label: str | None = None, **fields: Any) -> Row:
    files = {"image": Path(f"{name}.png")} | fields.pop("files", {})
    return Row(fields.pop("id", name), fields.pop("split", "train"), label, files=files, **fields)


def test_an_item_has_the_label_of_its_row_of_its_id_or_its_category() -> None:
    rows = [
        row("a", captions=("one",)),  # labelled by the next
        row("a", "dog", files={"sound": Path("s.wav")}),
        row("b", captions=("two",), category="cat"),
        row("c", captions=("three",)),
    ]
    assert labelled_items(rows, "text").contents == ["one", "two"]
    assert labelled_items(rows, "text").labels == ["dog", "cat"]
    assert labelled_items(rows, "sound").labels == ["dog"]


def test_a_caption_of_an_id_with_several_labels_is_left_out() -> None:
    rows = [row("a", "dog", id="1"), row("b", "cat", id="1"), row("c", id="1", captions=("one",))]
    items = labelled_items(rows, "text")
    assert (items.contents, items.n_ambiguous) == ([], 1)


def test_labels_of_another_kind_are_refused_and_not_counted_as_wrong() -> None:
    with pytest.raises(ValueError, match="labels such as '0' asked, such as 0 trained on"):
        classifier_transfer({"image": np.eye(2)}, [0, 1], {"image": np.eye(2)}, ["0", "1"])


def test_an_item_of_several_labels_is_left_out_and_counted() -> None:
    rows = [row("a", "dog", files={"sound": Path("s.wav")}), row("a", "cat", files={"sound": Path("t.wav")})]
    items = labelled_items(rows, "image")
    assert (items.contents, items.n_ambiguous) == ([], 1)
    assert labelled_items(rows, "sound").n_ambiguous == 0


def labelled(split: str, counts: dict[str, int], *, silent: str = "") -> list[Row]:
    """Rows of image, sound and caption; no sounds of one label."""
    rows = []
    for label, n in counts.items():
        for place in range(n):
            name = f"{split}-{label}{place}"
            sound = {} if label == silent else {"sound": Path(f"{name}.wav")}
            rows.append(row(name, label, files=sound, captions=(f"{label} {place}",), split=split))
    return rows


def test_labels_with_too_few_items_of_a_modality_are_left_out() -> None:
    train = labelled("train", {"bell": 5, "dog": 6, "rain": 4, "siren": 9}, silent="siren")
    test = labelled("val", {"bell": 2, "dog": 3, "rain": 5, "siren": 5})
    task = transfer_task(train, test, ("image", "sound", "text"))
    assert (task.labels, task.left_out) == (["bell", "dog"], ["rain", "siren"])
    assert task.without == []
    assert {modality: len(items.labels) for modality, items in task.train.items()} == dict.fromkeys(
        ("image", "sound", "text"), 11
    )
    assert len(task.test["sound"].labels) == 5


def test_a_modality_without_labels_is_named_and_does_not_keep_the_others_from_being_asked() -> None:
    train, test = labelled("train", {"bell": 5, "dog": 5}), labelled("val", {"bell": 2, "dog": 2})
    task = transfer_task(train, test, ("image", "speech", "text"))
    assert task.without == ["speech"]
    assert list(task.train) == ["image", "text"]


def test_a_modality_with_items_of_one_label_does_not_keep_the_others_from_being_asked() -> None:
    train, test = labelled("train", {"bell": 5, "dog": 5}, silent="dog"), labelled("val", {"bell": 2, "dog": 2})
    task = transfer_task(train, test, ("image", "sound", "text"))
    assert (task.without, task.labels) == (["sound"], ["bell", "dog"])


def test_fewer_than_two_labels_are_an_error() -> None:
    train, test = labelled("train", {"bell": 5, "dog": 1}), labelled("val", {"bell": 2})
    with pytest.raises(XmrError, match="1 of 2 labels have 5 training and 2 held-out items of every modality"):
        transfer_task(train, test, ("image", "sound"))


def test_rows_without_labels_are_an_error() -> None:
    with pytest.raises(XmrError, match="0 of 0 labels"):
        transfer_task([row("a", captions=("one",))], [], ("image", "text"))
