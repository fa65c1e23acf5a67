"""The part of a ranker that extrapolates, unlike trees: logistic regression on a pair's differences."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from mge_gpu.errors import RankingError
from mge_gpu.ranking.features import CONTEXT
from mge_gpu.ranking.pairs import DIFFERENCES, FEATURE_NAMES

PENALTY = 0.07
"""Weight of the squared coefficients beside the mean loss."""

_BEND = 3.0
_LARGEST = 1e12  # past all sense, and far from where sums overflow
_FIRST = [FEATURE_NAMES.index(name) for name in DIFFERENCES]
_CONTEXT = [FEATURE_NAMES.index(name) for name in CONTEXT]


@dataclass(frozen=True)
class Linear:
    """The log-odds that the first of two candidates beats the second, a sum over `DIFFERENCES`.

    A difference d counts as sign(d) log(1 + 3 |d|), times a constant and a number for each part of the
    context: how much a difference is worth may change with sparsity and density. Swapping the two turns the
    sign. Trees answer with what they saw at the edge of their table; this grows with the difference.

    Attributes:
        low, high: (context,) the range of each part of `CONTEXT` in the table; outside it counts as its edge.
        coefficients: (differences, 1 + context), for the context from -1 at its lowest to 1.

    They are tuples, so that two models can be compared.
    """

    low: tuple[float, ...]
    high: tuple[float, ...]
    coefficients: tuple[tuple[float, ...], ...]

    def parts(self, features: np.ndarray) -> np.ndarray:  # (pairs, features) -> (pairs, differences), float64
        """What each difference adds to the log-odds; nothing where it is not known."""
        terms = _terms(features, np.array(self.low), np.array(self.high))
        return np.einsum("pdc,dc->pd", terms, np.array(self.coefficients))

    def odds(self, features: np.ndarray) -> np.ndarray:  # (pairs, features) -> (pairs,), float64
        """The log-odds of pairs, from `mge_gpu.ranking.pairs.pair_features`."""
        return self.parts(features).sum(axis=1)

    def to_dict(self) -> dict[str, Any]:
        """JSON types, which `from_dict` takes."""
        return {
            "context": list(CONTEXT),
            "low": self.low,
            "high": self.high,
            "coefficients": dict(zip(DIFFERENCES, self.coefficients, strict=True)),
        }

    @classmethod
    def from_dict(cls, document: Any) -> "Linear":
        """What `to_dict` gave.

        Raises:
            RankingError: something is missing, has another length, or is no number of reasonable size.
        """
        try:
            if document["context"] != list(CONTEXT) or list(document["coefficients"]) != list(DIFFERENCES):
                raise RankingError("the linear model is one of other features")
            rows = [document["coefficients"][name] for name in DIFFERENCES]
            low, high, coefficients = (
                np.array(part, "float64") for part in (document["low"], document["high"], rows)
            )
        except (KeyError, TypeError, ValueError) as error:
            raise RankingError(f"the linear model is damaged ({type(error).__name__}: {error})") from error
        shapes = (low.shape, high.shape, coefficients.shape)
        if shapes != ((len(CONTEXT),), (len(CONTEXT),), (len(DIFFERENCES), 1 + len(CONTEXT))):
            raise RankingError(f"the linear model is damaged: its parts have shapes {shapes}")
        if not all((np.abs(part) < _LARGEST).all() for part in (low, high, coefficients)):
            raise RankingError(f"the linear model is damaged: it holds NaN or numbers beyond {_LARGEST:g}")
        return _linear(low, high, coefficients)


def fit_linear(features: np.ndarray, target: np.ndarray, penalty: float = PENALTY) -> Linear:
    """Fit by the cross-entropy between chances and shares of wins, with an L2 penalty on terms of unit size.

    Args:
        features: (pairs, features), from `mge_gpu.ranking.pairs.pair_features`.
        target: (pairs,) the share of wins of the first.
        penalty: see `PENALTY`.

    >>> features = np.zeros((2, len(FEATURE_NAMES)))
    >>> features[:, 0] = 1, -1
    >>> linear = fit_linear(features, np.array([0.9, 0.1]))
    >>> bool(linear.odds(features)[0] > 0)
    True
    """
    from scipy.optimize import minimize
    from scipy.special import expit

    context = features[:, _CONTEXT]
    known = np.isfinite(context)
    low = np.where(known, context, np.inf).min(axis=0, initial=np.inf)
    high = np.where(known, context, -np.inf).max(axis=0, initial=-np.inf)
    low, high = np.where(np.isfinite(low), low, 0), np.where(np.isfinite(high), high, 0)
    terms = _terms(features, low, high)
    shape = terms.shape[1:]
    x = terms.reshape(len(terms), -1)
    size = np.sqrt((x**2).mean(axis=0))
    size[size < 1e-6] = np.inf  # rounding errors of what does not differ
    x = x / size

    def loss(weights: np.ndarray) -> tuple[float, np.ndarray]:
        odds = x @ weights
        value = np.mean(np.logaddexp(0, odds) - target * odds) + penalty / 2 * weights @ weights
        return float(value), x.T @ (expit(odds) - target) / len(x) + penalty * weights

    found = minimize(loss, np.zeros(x.shape[1]), jac=True, method="L-BFGS-B").x
    return _linear(low, high, (found / size).reshape(shape))


def _linear(low: np.ndarray, high: np.ndarray, coefficients: np.ndarray) -> Linear:
    return Linear(tuple(low.tolist()), tuple(high.tolist()), tuple(map(tuple, coefficients.tolist())))


def _terms(
    features: np.ndarray, low: np.ndarray, high: np.ndarray
) -> np.ndarray:  # (pairs, differences, 1 + context), float64
    bent = np.nan_to_num(features[:, _FIRST])
    bent = np.sign(bent) * np.log1p(_BEND * np.abs(bent))
    context = np.clip(np.nan_to_num(features[:, _CONTEXT]), low, high)
    place = (2 * context - low - high) / np.where(high > low, high - low, 1)
    return np.concatenate([bent[:, :, None], bent[:, :, None] * place[:, None, :]], axis=2)
