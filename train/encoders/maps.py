"""From maps over time or place to one row: pooling."""

import torch
from torch import Tensor, nn
from torch.nn import functional


def max_over_time(maps: Tensor, pool: int) -> Tensor:
    """(n, c, t) -> (n, c, t // pool). As a picture of height 1, because max_pool1d would fix the exported time axis."""
    return functional.max_pool2d(maps.unsqueeze(2), (1, pool)).squeeze(2)


class MaxOverTime(nn.Module):
    """max_over_time as a layer."""

    def __init__(self, pool: int) -> None:
        super().__init__()
        self.pool = pool

    def forward(self, maps: Tensor) -> Tensor:
        return max_over_time(maps, self.pool)


class MeanAndMax(nn.Module):
    """(n, c, ...) -> (n, 2c): mean and maximum over all that follows the channels."""

    def forward(self, maps: Tensor) -> Tensor:
        flat = maps.flatten(start_dim=2)
        return torch.cat([flat.mean(dim=2), flat.amax(dim=2)], dim=1)


class MeanOfPlaces(nn.Module):
    """(n, c, ...) -> (n, c): mean over all that follows the channels."""

    def forward(self, maps: Tensor) -> Tensor:
        return maps.flatten(start_dim=2).mean(dim=2)


class MaxOfPlaces(nn.Module):
    """(n, c, ...) -> (n, c): maximum over all that follows the channels."""

    def forward(self, maps: Tensor) -> Tensor:
        return maps.flatten(start_dim=2).amax(dim=2)


def weldon_pool(maps: Tensor, n_max: int, n_min: int, *, halved: bool = False) -> Tensor:
    """(n, c, ...) -> (n, c): mean of the n_max highest places of a channel + mean of its n_min lowest.

    A map with fewer places gives all that it has to either mean. DSVE (Engilberge et al. 2018) takes the sum, WELDON
    (Durand et al. 2016) half of it. n_min 0: the highest places alone.
    """
    places = maps.flatten(start_dim=2)
    highest = _mean_of_extremes(places, n_max, largest=True)
    if not n_min:
        return highest
    total = highest + _mean_of_extremes(places, n_min, largest=False)
    return total / 2 if halved else total


def _mean_of_extremes(places: Tensor, count: int, *, largest: bool) -> Tensor:
    return places.topk(min(count, places.shape[2]), dim=2, largest=largest).values.mean(dim=2)


class WeldonPool(nn.Module):
    """weldon_pool as a layer."""

    def __init__(self, n_max: int, n_min: int, *, halved: bool = False) -> None:
        super().__init__()
        self.n_max, self.n_min, self.halved = n_max, n_min, halved

    def forward(self, maps: Tensor) -> Tensor:
        return weldon_pool(maps, self.n_max, self.n_min, halved=self.halved)
