"""The exponential moving average of a model's weights over the steps of its training."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor

from xmr.train.model import AlignedModel
from xmr.train.settings import TrainConfig


class Average:
    """w̄ ← d·w̄ + (1 − d)·w for every number that training changes, statistics of batch norm among them.

    d is min(decay, (1 + step) / (10 + step)), so that the first steps, which are far off, are forgotten soon.
    """

    def __init__(self, model: AlignedModel, decay: float, stages: Sequence[TrainConfig]) -> None:
        self.decay = decay
        finetuned = {modality for stage in stages for modality in stage.finetune}
        fixed = [f"encoders.{modality}.trunk." for modality in model.modalities if modality not in finetuned]
        fixed += [f"encoders.{modality}.classifier." for modality in model.modalities]
        self._names = [name for name in model.state_dict() if not name.startswith(tuple(fixed))]
        self.tensors: dict[str, Tensor] = {}
        self.restart(model)

    def restart(self, model: AlignedModel) -> None:
        """Begin anew with the weights as they are."""
        state = model.state_dict()
        self.tensors = {name: state[name].detach().clone() for name in self._names}

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Go on with these averages."""
        for name, tensor in self.tensors.items():
            tensor.copy_(tensors[name])

    def settle(self, model: AlignedModel) -> None:
        """Take the weights of trunks that do not learn as they are: what is cached of files was made by these."""
        state = model.state_dict()
        settled = tuple(f"encoders.{name}.trunk." for name in model.modalities if model.encoder(name).is_frozen)
        _copy({name: state[name] for name in self._names if name.startswith(settled)}, self.tensors)

    def update(self, model: AlignedModel, step: int) -> None:
        """After a step."""
        state = model.state_dict()
        kept = min(self.decay, (1 + step) / (10 + step))
        with torch.no_grad():
            for name, tensor in self.tensors.items():
                if tensor.is_floating_point():
                    tensor.lerp_(state[name], 1 - kept)
                else:
                    tensor.copy_(state[name])

    @contextmanager
    def in_place(self, model: AlignedModel) -> Iterator[None]:
        """The model with its averaged weights, for as long as the block lasts."""
        state = model.state_dict()
        present = {name: state[name].detach().clone() for name in self._names}
        _copy(self.tensors, state)
        try:
            yield
        finally:
            _copy(present, state)


def _copy(tensors: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> None:
    with torch.no_grad():
        for name, tensor in tensors.items():
            state[name].copy_(tensor)
