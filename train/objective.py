"""What a training minimises: the losses of its settings, weighed, and the parameters that some of them learn."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any, Literal

import torch
from torch import Tensor, nn

from xmr.engine.errors import XmrError
from xmr.train import losses
from xmr.train.model import AlignedModel, Outputs
from xmr.train.settings import TrainConfig

Comparison = Literal["dot", "order", "SISA", "MISA", "SIMA"]


@dataclass
class Batch:
    """One batch of rows that have the same modalities, after the model."""

    name: str  # of its kind, as image-text
    features: dict[str, Tensor]  # of the trunks, by modality
    outputs: Mapping[str, Outputs]
    ids: Tensor  # (n,) numbers of what the rows show, among all training rows
    seed: int  # of what a loss draws in this step

    @property
    def pairs(self) -> list[tuple[str, str]]:
        """Every two modalities; the image, if there is one, is the first of its pairs."""
        return list(combinations(self.outputs, 2))


class Objective(nn.Module):
    """The losses of all stages of a training. One object for all, so that what it has learned outlives a stage."""

    def __init__(self, stages: Sequence[TrainConfig], model: AlignedModel, n_ids: int) -> None:
        super().__init__()
        self.unnormalized = frozenset(stages[0].head.unnormalized)
        self.learned = nn.ParameterDict()
        for stage in stages:
            for name, settings in _used(stage):
                _check(name, stage, settings, model)
                for key, value in _first_values(name, settings, model.dim, n_ids).items():
                    self.learned.setdefault(f"{name}_{key}", nn.Parameter(value))

    def forward(self, model: AlignedModel, stage: TrainConfig, batch: Batch) -> dict[str, Tensor]:
        """The weighted losses of one batch, by name."""
        return {
            f"{batch.name}.{name}": settings.weight * TERMS[name](self, settings, model, batch)
            for name, settings in losses_of(stage, batch.name).items()
        }

    def rows(self, batch: Batch, modality: str) -> Tensor:
        """(n, dim) as the losses see them: unit rows, or at their own length where the settings say so."""
        outputs = batch.outputs[modality]
        return (outputs.at_own_length if modality in self.unnormalized else outputs.embeddings).float()

    def over_pairs(self, batch: Batch, loss: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
        """The sum of a loss of two modalities over every two of the batch."""
        return _total(loss(self.rows(batch, a), self.rows(batch, b)) for a, b in batch.pairs)

    def temperature(self, name: str, settings: Any) -> float | Tensor:
        """As it stands in the settings, or as it has been learned."""
        return self.learned[f"{name}_log_temperature"].exp() if settings.is_learned else float(settings.temperature)


def losses_of(stage: TrainConfig, kind: str) -> dict[str, Any]:
    """The settings of the losses that batches of one kind have, by name."""
    modalities = set(kind.split("-"))
    return {name: settings for name, settings in _used(stage) if _is_for(name, settings, modalities)}


def check_batches(stage: TrainConfig, kinds: Sequence[str]) -> None:
    """XmrError for a loss that none of these kinds of batches has."""
    for name, _ in _used(stage):
        if not any(name in losses_of(stage, kind) for kind in kinds):
            raise XmrError(
                f"losses.{name}: is for none of the batches there are, {', '.join(kinds)}; mend what it says of "
                "batches and modalities, or set its weight to 0"
            )


def comparison_of(stages: Sequence[TrainConfig]) -> Comparison:
    """How the embeddings of a training are compared: by inner product, unless a loss of its last stage says otherwise.

    `order` as order embeddings; `SISA`, `MISA` or `SIMA` by the maps of where and when, pooled in that way.
    """
    found: list[Comparison] = [
        getattr(settings, key)
        for _, settings in _used(stages[-1])
        for key in ("similarity", "matchmap")
        if getattr(settings, key, "none") not in ("dot", "none")
    ]
    return found[0] if found else "dot"


def teacher_of(model: AlignedModel) -> nn.Module:
    """The classifier of the image encoder; XmrError where it has none."""
    classifier = model.encoder("image").classifier if "image" in model.modalities else None
    if classifier is None:
        raise XmrError("losses.kl_transfer: needs an image encoder with a classifier, as timm; set its weight to 0")
    return classifier


def _used(stage: TrainConfig) -> Iterator[tuple[str, Any]]:
    return ((name, settings) for name, settings in stage.losses.items() if settings.weight)


def _is_for(name: str, settings: Any, modalities: set[str]) -> bool:
    if settings.batches and modalities not in [set(kind.split("-")) for kind in settings.batches]:
        return False
    if name != "kl_transfer":
        return True
    return "image" in modalities and bool(modalities & set(settings.modalities or modalities))


def _check(name: str, stage: TrainConfig, settings: Any, model: AlignedModel) -> None:
    """What a loss needs of the model, before any work."""
    if name == "reconstruction":
        asked = {modality for kind in settings.batches for modality in kind.split("-")} or set(model.modalities)
        if not {"image", "speech", "text"} >= asked:
            raise XmrError(f"losses.reconstruction: is for image, speech and text; found {', '.join(sorted(asked))}")
    if name == "sampled_impostors" and settings.matchmap != "none":
        kinds = settings.batches or ["-".join(model.modalities)]
        for modality in model.modalities:
            is_mapped = any(modality in kind.split("-") for kind in kinds)
            if is_mapped and not model.encoder(modality).has_maps:
                raise XmrError(
                    f"losses.sampled_impostors.matchmap: the encoder of {modality} keeps no map of where and when; "
                    "choose one that does, as timm-map and davenet, or set it to none"
                )
    if name == "kl_transfer":
        n_classes = _n_classes(teacher_of(model))
        if stage.finetune.get("image"):
            raise XmrError("losses.kl_transfer: its teacher is the image encoder's trunk, which is to learn; freeze it")
        if n_classes != stage.head.n_classes:
            raise XmrError(f"head.n_classes: {stage.head.n_classes} found, the teacher has {n_classes}; set it to that")


def _n_classes(classifier: nn.Module) -> int:
    """The last layer decides; frozen features of any width go in."""
    return next((parameter.shape[0] for parameter in reversed(list(classifier.parameters()))), 0)


def _first_values(name: str, settings: Any, dim: int, n_ids: int) -> dict[str, Tensor]:
    """Of the parameters that a loss learns."""
    values: dict[str, Tensor] = {}
    if name == "cmpc":
        values["weight"] = nn.init.xavier_uniform_(torch.empty(dim, n_ids))
    if getattr(settings, "is_learned", False):
        values["log_temperature"] = torch.tensor(math.log(settings.temperature))
        if name == "sigmoid":
            values["bias"] = torch.tensor(float(settings.bias))
    return values


def _total(values: Iterator[Tensor]) -> Tensor:
    return torch.stack(list(values)).sum()


def _ids(settings: Any, batch: Batch) -> Tensor | None:
    return batch.ids if settings.use_ids else None


def _ranking(objective: Objective, settings: Any, model: AlignedModel, batch: Batch) -> Tensor:
    def loss(a: Tensor, b: Tensor) -> Tensor:
        return losses.ranking(
            a, b, _ids(settings, batch), settings.margin, settings.both_ways, similarity=settings.similarity
        )

    total = objective.over_pairs(batch, loss)
    if settings.shared_layers:
        layers = {modality: outputs.layers for modality, outputs in batch.outputs.items()}
        for a, b in batch.pairs:
            total = total + _total(loss(x.float(), y.float()) for x, y in zip(layers[a], layers[b], strict=True))
    return total


def _hardest_negative(objective: Objective, settings: Any, model: AlignedModel, batch: Batch) -> Tensor:
    return objective.over_pairs(
        batch,
        lambda a, b: losses.hardest_negative(
            a,
            b,
            _ids(settings, batch),
            settings.margin,
            settings.n_hardest,
            diagonal=settings.diagonal,
            similarity=settings.similarity,
        ),
    )


def _info_nce(objective: Objective, settings: Any, model: AlignedModel, batch: Batch) -> Tensor:
    temperature = objective.temperature("info_nce", settings)
    return objective.over_pairs(batch, lambda a, b: losses.info_nce(a, b, _ids(settings, batch), temperature))


def _sigmoid(objective: Objective, settings: Any, model: AlignedModel, batch: Batch) -> Tensor:
    temperature = objective.temperature("sigmoid", settings)
    bias = objective.learned["sigmoid_bias"] if settings.is_learned else settings.bias
    return objective.over_pairs(batch, lambda a, b: losses.sigmoid(a, b, _ids(settings, batch), temperature, bias))


def _kl_transfer(objective: Objective, settings: Any, model: AlignedModel, batch: Batch) -> Tensor:
    """The classes that the teacher sees in the image are what every modality's class softmax should give."""
    with torch.no_grad():
        teacher = teacher_of(model)(batch.features["image"].float()).softmax(dim=1)
    taught = settings.modalities or tuple(batch.outputs)
    logits = {modality: batch.outputs[modality].logits for modality in taught if modality in batch.outputs}
    return _total(losses.kl_transfer(of.float(), teacher) for of in logits.values() if of is not None)


def _cmpm(objective: Objective, settings: Any, model: AlignedModel, batch: Batch) -> Tensor:
    return objective.over_pairs(batch, lambda a, b: _total(iter(losses.cmpm(a, b, _ids(settings, batch)))))


def _cmpc(objective: Objective, settings: Any, model: AlignedModel, batch: Batch) -> Tensor:
    weight = objective.learned["cmpc_weight"]
    return objective.over_pairs(
        batch, lambda a, b: _total(iter(losses.cmpc(a, b, batch.ids, weight, settings.label_smoothing)))
    )


def _reconstruction(objective: Objective, settings: Any, model: AlignedModel, batch: Batch) -> Tensor:
    rows = [objective.rows(batch, modality) for modality in batch.outputs]
    return losses.reconstruction(rows, settings.smooth, weight_axis=settings.weight_axis)


def _sampled_impostors(objective: Objective, settings: Any, model: AlignedModel, batch: Batch) -> Tensor:
    # drawn on the CPU, so that every device sees the same impostors
    generator = torch.Generator().manual_seed(batch.seed)
    scores = []
    for a, b in batch.pairs:
        if settings.matchmap == "none":
            scores.append(objective.rows(batch, a) @ objective.rows(batch, b).T)
            continue
        images, _ = model.maps(a, batch.features[a].float())
        sounds, n_frames = model.maps(b, batch.features[b].float())
        if images.shape[1] != sounds.shape[1]:
            found = f"{images.shape[1]} channels of {a}, {sounds.shape[1]} of {b}"
            raise XmrError(f"losses.sampled_impostors.matchmap: {found}; give both encoders' maps the same number")
        scores.append(losses.matchmap_similarity(images, sounds, n_frames, kind=settings.matchmap))
    ids = _ids(settings, batch)
    return _total(losses.sampled_impostors(of, ids, settings.margin, generator) for of in scores)


def _semi_hard(objective: Objective, settings: Any, model: AlignedModel, batch: Batch) -> Tensor:
    return objective.over_pairs(
        batch,
        lambda a, b: losses.semi_hard(a @ b.T, _ids(settings, batch), settings.margin, settings.faithful),
    )


TERMS: dict[str, Callable[[Objective, Any, AlignedModel, Batch], Tensor]] = {
    "ranking": _ranking,
    "hardest_negative": _hardest_negative,
    "info_nce": _info_nce,
    "sigmoid": _sigmoid,
    "kl_transfer": _kl_transfer,
    "cmpm": _cmpm,
    "cmpc": _cmpc,
    "reconstruction": _reconstruction,
    "sampled_impostors": _sampled_impostors,
    "semi_hard": _semi_hard,
}
