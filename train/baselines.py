"""What a model is held against: linear regression and canonical correlations between the features of two modalities.

Both are functions of the covariances alone, which are summed batch by batch in float64: a million rows of 2,000 numbers
take the memory of three matrices. Features are brought to mean 0 and deviation 1 on the rows they are fitted on.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import ArrayLike, NDArray

from xmr.engine.errors import XmrError

Array = NDArray[np.float64]

POWER = 4.0  # of the correlations that weigh the canonical variables (Gong et al. 2014, section 3.3)
LEAST = 1e-10  # of the largest eigenvalue: what varies less than that does not vary
NOISE = 1e-24  # of its mean squared: a variance that small is the rounding of a feature that never varies


@dataclass(frozen=True)
class Standard:
    """How the features of a modality are brought to mean 0 and deviation 1; one that never varies is 0."""

    mean: Array  # (d,)
    deviation: Array  # (d,), 0 of a feature that never varies

    @classmethod
    def of(cls, features: ArrayLike) -> "Standard":
        """As it is with features (n, d)."""
        rows = np.asarray(features, dtype=np.float64)
        return cls.from_variance(rows.mean(axis=0), rows.var(axis=0))

    @classmethod
    def from_variance(cls, mean: Array, variance: Array) -> "Standard":
        """Of (d,) means and variances; what is only rounding does not vary."""
        return cls(mean, np.sqrt(np.where(variance > NOISE * np.square(mean), variance, 0.0)))

    def __call__(self, features: ArrayLike) -> Array:
        """(n, d) -> (n, d)."""
        return (np.asarray(features, dtype=np.float64) - self.mean) * self.inverse

    @property
    def inverse(self) -> Array:
        """(d,): 1 / deviation, 0 of a feature that never varies."""
        varies = self.deviation > 0
        return np.where(varies, 1 / np.where(varies, self.deviation, 1.0), 0.0)

    def undo(self, standardised: Array) -> Array:
        """(n, d) -> (n, d), in the features' own units."""
        return standardised * self.deviation + self.mean


@dataclass
class Moments:
    """The number, means and products of deviations of pairs of features, of which more can be added."""

    n: int
    mean_a: Array  # (d_a,)
    mean_b: Array  # (d_b,)
    aa: Array  # (d_a, d_a), summed over the pairs
    bb: Array  # (d_b, d_b)
    ab: Array  # (d_a, d_b)

    @classmethod
    def empty(cls, dim_a: int, dim_b: int) -> "Moments":
        shapes = ((dim_a, dim_a), (dim_b, dim_b), (dim_a, dim_b))
        return cls(0, np.zeros(dim_a), np.zeros(dim_b), *(np.zeros(shape) for shape in shapes))

    def add(self, a: ArrayLike, b: ArrayLike) -> None:
        """Pairs a (n, d_a), b (n, d_b), row by row. Chan, Golub, LeVeque (1979): exact whatever the means are."""
        left, right = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
        n_more, n_both = len(left), self.n + len(left)
        if n_more != len(right):
            raise ValueError(f"{n_more} and {len(right)} rows found, pairs expected")
        if not n_more:
            return
        away_a, away_b = left.mean(axis=0) - self.mean_a, right.mean(axis=0) - self.mean_b
        left, right = left - left.mean(axis=0), right - right.mean(axis=0)
        share = self.n * n_more / n_both
        self.aa += left.T @ left + share * np.outer(away_a, away_a)
        self.bb += right.T @ right + share * np.outer(away_b, away_b)
        self.ab += left.T @ right + share * np.outer(away_a, away_b)
        self.mean_a = self.mean_a + away_a * n_more / n_both
        self.mean_b = self.mean_b + away_b * n_more / n_both
        self.n = n_both


@dataclass(frozen=True)
class Within:
    """The statistics of the features of one modality."""

    standard: Standard
    correlations: Array  # (d, d) of the standardised features

    @cached_property
    def spectrum(self) -> tuple[Array, Array]:
        """Eigenvalues (k,) and eigenvectors (d, k) of the correlations, without those along which nothing varies."""
        values, vectors = np.linalg.eigh(self.correlations)
        varies = values > LEAST * max(values[-1], 0.0)
        return values[varies], vectors[:, varies]


@dataclass(frozen=True)
class Paired:
    """The statistics of pairs, from which regressions and canonical correlations of any strength come."""

    n: int
    a: Within
    b: Within
    between: Array  # (d_a, d_b) correlations

    def swapped(self) -> "Paired":
        """The same with the sides exchanged."""
        return Paired(self.n, self.b, self.a, self.between.T)


def paired(batches: Iterable[tuple[ArrayLike, ArrayLike]]) -> Paired:
    """The statistics of pairs of features a (n, d_a) and b (n, d_b), summed batch by batch.

    XmrError for fewer than two pairs, and for features that are no numbers.
    """
    moments: Moments | None = None
    for a, b in batches:
        left, right = np.asarray(a), np.asarray(b)
        moments = moments or Moments.empty(left.shape[1], right.shape[1])
        moments.add(left, right)
    if moments is None or moments.n < 2:
        raise XmrError(f"{moments.n if moments else 0} pairs found, a baseline needs at least two; add train rows")
    return _standardised(moments)


def _standardised(moments: Moments) -> Paired:
    if not np.isfinite(moments.mean_a).all() or not np.isfinite(moments.mean_b).all():
        raise XmrError("the features hold NaN or infinite numbers; delete the cache and run again")
    a, b = (_within(*side, moments.n) for side in ((moments.mean_a, moments.aa), (moments.mean_b, moments.bb)))
    between = moments.ab / moments.n * np.outer(a.standard.inverse, b.standard.inverse)
    return Paired(moments.n, a, b, between)


def _within(mean: Array, products: Array, n: int) -> Within:
    standard = Standard.from_variance(mean, np.diag(products) / n)
    return Within(standard, products / n * np.outer(standard.inverse, standard.inverse))


@dataclass(frozen=True)
class Regression:
    """A linear map from the features of one modality to those of another."""

    a: Standard
    b: Standard
    weights: Array  # (d_a, d_b), of the standardised features

    def __call__(self, features: ArrayLike) -> Array:
        """(n, d_a) features -> (n, d_b) features that are expected with them."""
        return self.b.undo(self.a(features) @ self.weights)


def regression(pairs: Paired, strength: float) -> Regression:
    """Ridge regression of b on a (Hoerl and Kennard 1970).

    `strength` is added to the correlations of a: that of scikit-learn's Ridge divided by the number of pairs.
    """
    if strength < 0:
        raise ValueError(f"strength {strength} found, 0 or more expected")
    values, vectors = pairs.a.spectrum
    weights = (vectors / (values + strength)) @ (vectors.T @ pairs.between)
    return Regression(pairs.a.standard, pairs.b.standard, weights)


@dataclass(frozen=True)
class Side:
    """How the features of one modality become canonical variables, and back."""

    standard: Standard
    directions: Array  # (d, k): each column is one canonical variable, of deviation 1 where nothing is regularised
    expansion: Array  # (k, d): what features are expected with the variables


@dataclass(frozen=True)
class Canonical:
    """Canonical correlations between two modalities (Hotelling 1936), the strongest first."""

    a: Side
    b: Side
    correlations: Array  # (k,)

    def variables(self, side: Side, features: ArrayLike, dim: int, power: float = 0.0) -> Array:
        """(n, d) -> (n, dim) canonical variables, each times its correlation to a power."""
        projected = side.standard(features) @ side.directions[:, :dim]
        return np.asarray(projected * self.correlations[:dim] ** power)


def canonical(pairs: Paired, strength: float) -> Canonical:
    """Regularised canonical correlations: `strength` is added to the correlations within both modalities.

    Whitened, the correlations between them are taken apart into singular values (Gong et al. 2014, section 3.2).
    """
    if strength < 0:
        raise ValueError(f"strength {strength} found, 0 or more expected")
    (values_a, vectors_a), (values_b, vectors_b) = pairs.a.spectrum, pairs.b.spectrum
    shrink_a, shrink_b = 1 / np.sqrt(values_a + strength), 1 / np.sqrt(values_b + strength)
    whitened = shrink_a[:, None] * (vectors_a.T @ pairs.between @ vectors_b) * shrink_b
    left, correlations, right = np.linalg.svd(whitened, full_matrices=False)
    a, b = _side(pairs.a, shrink_a, left), _side(pairs.b, shrink_b, right.T)
    return Canonical(a, b, np.clip(correlations, 0.0, 1.0))


def _side(within: Within, shrink: Array, turn: Array) -> Side:
    """Of (k,) that whitens and (k, n_variables) that turns what is white."""
    values, vectors = within.spectrum
    return Side(within.standard, (vectors * shrink) @ turn, (turn.T * (values * shrink)) @ vectors.T)


def unit_rows(features: Array) -> NDArray[np.float32]:
    """(n, d) -> (n, d) float32 rows of unit length, whose inner product is the cosine; a row of zeros stays one."""
    lengths = np.linalg.norm(features, axis=1, keepdims=True)
    return np.asarray(features / np.where(lengths > 0, lengths, 1.0), dtype=np.float32)
