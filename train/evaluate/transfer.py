"""Zero-shot transfer of classifiers: trained on the embeddings of one modality, tested on those of every other.

As See, Hear, and Read asks (Aytar, Vondrick, Torralba 2017). Which linear classifier the paper took is not said; here
it is logistic regression on unit rows, its C chosen by cross-validation on the training modality alone.
"""

import warnings
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from xmr.engine.errors import XmrError
from xmr.train.baselines import Standard, unit_rows
from xmr.train.datasets import Row
from xmr.train.evaluate.against import Baselines
from xmr.train.evaluate.fitted import LINEAR, POWERS, Correlated, Rows
from xmr.train.evaluate.held_out import HeldOut
from xmr.train.evaluate.items import row_contents

KIND = "transfer"
CHANCE, MAJORITY, MODEL = "chance", "majority", "model"
STRENGTHS = (0.1, 1.0, 10.0, 100.0, 1000.0)  # C, which grows as the classifier is regularised less
N_FOLDS = 3
MAX_ITERATIONS = 300
LEAST_TRAIN, LEAST_TEST = 5, 2  # items of a label that every modality must have

Labels = Sequence[Any] | NDArray[Any]
Embeddings = Mapping[str, ArrayLike]


def classifier_transfer(
    train_embeddings: Embeddings,
    train_labels: Mapping[str, Labels] | Labels,
    test_embeddings: Embeddings,
    test_labels: Mapping[str, Labels] | Labels,
    *,
    seed: int = 0,
) -> dict[str, dict[str, float]]:
    """Accuracy in percent, by the modality that a linear classifier is trained on and the one that it is tested on.

    Embeddings are (n, d) by modality, brought to unit length here; labels by modality, or one list where all modalities
    have the same rows. A label that the classifier never saw counts as wrong. The seed decides the folds that choose C.
    XmrError where the training items have a single label.
    """
    table: dict[str, dict[str, float]] = {}
    for source, rows in train_embeddings.items():
        classifier = Classifier.train(source, rows, _of(train_labels, source), seed)
        table[source] = {
            target: classifier.accuracy(asked, _of(test_labels, target)) for target, asked in test_embeddings.items()
        }
    return table


@dataclass(frozen=True)
class Classifier:
    """A linear classifier and the C that was chosen for it."""

    machine: Any
    strength: float

    @classmethod
    def train(cls, source: str, rows: ArrayLike, labels: Labels, seed: int = 0) -> "Classifier":
        """Of rows (n, d) and their labels; `source` names them where something is wrong."""
        from sklearn.exceptions import ConvergenceWarning

        unit, known = _unit(rows), np.asarray(labels)
        _check(source, unit, known)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # an accuracy does not need the last digit
            strength = _choose(unit, known, seed)
            return cls(_machine(strength).fit(unit, known), strength)

    def accuracy(self, rows: ArrayLike, labels: Labels) -> float:
        """Percent of rows (n, d) whose label is found."""
        unit, known = _unit(rows), np.asarray(labels)
        if len(unit) != len(known) or not len(known):
            raise ValueError(f"{len(unit)} rows and {len(known)} labels found, as many of both expected")
        if len({of.dtype.kind in "biuf" for of in (known, self.machine.classes_)}) > 1:
            first, *_ = known.tolist()
            raise ValueError(
                f"labels such as {first!r} asked, such as {self.machine.classes_.tolist()[0]!r} trained on"
            )
        return round(100 * float(np.mean(self.machine.predict(unit) == known)), 4)


def _choose(rows: Rows, labels: NDArray[Any], seed: int) -> float:
    """The C of the best accuracy over folds, the smallest of equally good ones; 1 where a label has one row only."""
    from sklearn.model_selection import StratifiedKFold, cross_val_score

    n_folds = min(N_FOLDS, min(Counter(labels.tolist()).values()))
    if n_folds < 2:
        return 1.0
    folds = StratifiedKFold(n_folds, shuffle=True, random_state=seed)
    figures = [float(np.mean(cross_val_score(_machine(of), rows, labels, cv=folds))) for of in STRENGTHS]
    return STRENGTHS[int(np.argmax(figures))]


def _machine(strength: float) -> Any:
    from sklearn.linear_model import LogisticRegression

    return LogisticRegression(C=strength, max_iter=MAX_ITERATIONS)


def _check(source: str, rows: Rows, labels: NDArray[Any]) -> None:
    if len(rows) != len(labels):
        raise ValueError(f"{len(rows)} rows of {source} and {len(labels)} labels found, as many of both expected")
    if len(kinds := np.unique(labels)) < 2:
        found = f"the label {kinds[0]}" if len(kinds) else "no label"
        raise XmrError(
            f"classifier transfer: all {len(labels)} training items of {source} have {found}; "
            "a classifier needs two labels at least"
        )


def _unit(rows: ArrayLike) -> Rows:
    return unit_rows(np.asarray(rows, dtype=np.float64))


def _of(labels: Mapping[str, Labels] | Labels, modality: str) -> Labels:
    return labels[modality] if isinstance(labels, Mapping) else labels


@dataclass(frozen=True)
class Labelled:
    """Files or sentences of one modality, and a label for each."""

    contents: list[Any]
    labels: list[str]
    n_ambiguous: int = 0  # others, left out because they have several labels

    def among(self, labels: set[str]) -> "Labelled":
        kept = [pair for pair in zip(self.contents, self.labels, strict=True) if pair[1] in labels]
        return replace(self, contents=[content for content, _ in kept], labels=[label for _, label in kept])


def labelled_items(rows: Sequence[Row], modality: str) -> Labelled:
    """Each file or sentence once: with the label of its row, else of rows with the same id, else the row's category."""
    labels_of_id: dict[str, set[str]] = defaultdict(set)
    for row in rows:
        if row.label is not None:
            labels_of_id[row.id].add(row.label)
    labels: dict[Any, set[str]] = defaultdict(set)
    for row in rows:
        of_id: Sequence[str | None] = sorted(labels_of_id.get(row.id, ())) or [row.category]
        names = [row.label] if row.label is not None else of_id
        for content in row_contents(row, modality):
            labels[content] |= {str(name) for name in names if name is not None}
    single = {content: next(iter(of)) for content, of in labels.items() if len(of) == 1}
    return Labelled(list(single), list(single.values()), sum(len(of) > 1 for of in labels.values()))


@dataclass(frozen=True)
class Task:
    """The labelled items of every modality, of labels of which all have enough to train and to test."""

    train: Mapping[str, Labelled]
    test: Mapping[str, Labelled]
    labels: list[str]
    left_out: list[str]  # labels of which some modality has too few items
    without: list[str]  # modalities of which no item has a label


def transfer_task(train: Sequence[Row], test: Sequence[Row], modalities: Sequence[str]) -> Task:
    """What classifiers can be trained and tested on; XmrError where it is fewer than two labels.

    A modality that has not enough items of two labels is left out, so that the others can be shown.
    """
    of_train, of_test = (
        {modality: labelled_items(rows, modality) for modality in modalities} for rows in (train, test)
    )
    usable = {name: _usable_labels(of_train[name], of_test[name]) for name in modalities}
    shown = [modality for modality in modalities if len(usable[modality]) >= 2]
    asked = shown or modalities
    found = sorted({label for name in asked for of in (of_train[name], of_test[name]) for label in of.labels})
    kept = set.intersection(*(usable[modality] for modality in asked))
    if len(kept) < 2:
        raise XmrError(
            f"classifier transfer: {len(kept)} of {len(found)} labels have {LEAST_TRAIN} training and {LEAST_TEST} "
            "held-out items of every modality, two labels at least are needed; add rows with a label"
        )
    return Task(
        {modality: of_train[modality].among(kept) for modality in shown},
        {modality: of_test[modality].among(kept) for modality in shown},
        sorted(kept),
        [label for label in found if label not in kept],
        [modality for modality in modalities if modality not in shown],
    )


def _usable_labels(train: Labelled, test: Labelled) -> set[str]:
    """Those of which one modality has enough items."""
    n_train, n_test = Counter(train.labels), Counter(test.labels)
    return {label for label, n in n_train.items() if n >= LEAST_TRAIN and n_test[label] >= LEAST_TEST}


def transfer_records(held_out: HeldOut, baselines: Baselines) -> list[dict[str, Any]]:
    """One record a method and modality that is trained on: `accuracy` in percent by the modality that is tested.

    Chance; always the most frequent training label; the features that a model is built on, those of others regressed
    on to them; canonical variables of two modalities; the model's embeddings. A figure that can't be computed has its
    reason in `missing`.
    """
    task = transfer_task(baselines.train.rows, baselines.asked.rows, held_out.model.modalities)
    facts = {"split": baselines.asked.split, "n_labels": len(task.labels), "labels_left_out": task.left_out}
    facts |= {"n_test": {modality: len(of.labels) for modality, of in task.test.items()}}
    ambiguous = {name: task.train[name].n_ambiguous + task.test[name].n_ambiguous for name in task.test}
    facts |= {"n_ambiguous": {modality: n for modality, n in ambiguous.items() if n}}
    enough = f"{LEAST_TRAIN} training and {LEAST_TEST} held-out items"
    missing = {modality: f"fewer than two labels have {enough} of {modality}" for modality in task.without}
    made = [*_without_features(task), *_of_features(task, baselines), *_of_model(task, held_out, baselines)]
    records = []
    for row in sorted(made, key=lambda row: [None, *task.train].index(row.get("trained_on"))):
        reasons = missing | row.get("missing", {})
        records.append({"kind": KIND, **row, **facts, **({"missing": reasons} if reasons else {})})
    return records


def _without_features(task: Task) -> Iterator[dict[str, Any]]:
    """Chance, and for each modality the label that is most frequent in training."""
    yield {"method": CHANCE, "accuracy": {modality: round(100 / len(task.labels), 4) for modality in task.test}}
    for source, items in task.train.items():
        [(label, _)] = Counter(sorted(items.labels)).most_common(1)
        shares = {target: of.labels.count(label) / len(of.labels) for target, of in task.test.items()}
        accuracy = {target: round(100 * share, 4) for target, share in shares.items()}
        yield {"method": MAJORITY, "trained_on": source, "accuracy": accuracy}


def _of_features(task: Task, baselines: Baselines) -> Iterator[dict[str, Any]]:
    train = {name: baselines.train.features(name, of.contents) for name, of in task.train.items()}
    test = {name: baselines.asked.features(name, of.contents) for name, of in task.test.items()}
    for source in task.train:
        yield _regressed(task, baselines, source, train[source], test)
    for fit in baselines.fits.values():
        if fit.a in task.train and fit.b in task.train:
            for method in POWERS:
                correlated = fit.correlated[method]
                for source in (fit.a, fit.b):
                    yield _in_variables(task, f"{method} {fit.a}-{fit.b}", correlated, source, train[source], test)


def _regressed(task: Task, baselines: Baselines, source: str, train: Rows, test: Mapping[str, Rows]) -> dict[str, Any]:
    """The features of the source, and those that others are expected to come with, standardised as the source's are."""
    standard = Standard.of(train)
    tests, missing = {source: standard(test[source])}, {}
    for target in test:
        if target != source:
            regressed = baselines.regressed(target, source)
            if regressed is None:
                missing[target] = baselines.reasons[frozenset((target, source))]
            else:
                tests[target] = standard(regressed.predicted(test[target]))
    return _record(LINEAR, task, source, standard(train), tests) | ({"missing": missing} if missing else {})


def _in_variables(
    task: Task, method: str, correlated: Correlated, source: str, train: Rows, test: Mapping[str, Rows]
) -> dict[str, Any]:
    """Canonical variables of two modalities; a third has none."""
    of_pair = [target for target in test if target in (correlated.a, correlated.b)]
    tests = {target: correlated.variables(target, test[target]) for target in of_pair}
    record = _record(method, task, source, correlated.variables(source, train), tests)
    missing = {target: "canonical variables are of two modalities" for target in test if target not in of_pair}
    return record | ({"missing": missing} if missing else {})


def _of_model(task: Task, held_out: HeldOut, baselines: Baselines) -> Iterator[dict[str, Any]]:
    trained = HeldOut(held_out.model, baselines.train.features.store, baselines.train.rows, held_out.device)
    tests = {name: held_out.embeddings(name, of.contents) for name, of in task.test.items()}
    for source, items in task.train.items():
        yield _record(MODEL, task, source, trained.embeddings(source, items.contents), tests)


def _record(method: str, task: Task, source: str, train: ArrayLike, tests: Mapping[str, ArrayLike]) -> dict[str, Any]:
    classifier = Classifier.train(source, train, task.train[source].labels)
    accuracy = {target: classifier.accuracy(rows, task.test[target].labels) for target, rows in tests.items()}
    known = {"n_train": len(task.train[source].labels), "C": classifier.strength}
    return {"method": method, "trained_on": source, "accuracy": accuracy, **known}
