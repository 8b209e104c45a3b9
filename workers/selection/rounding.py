"""By how much a computed number can be wrong: the words and the constants of the whole package.

An *error* is a bound on |computed - true|. Numbers come in two precisions: *exact* ones are made in float64 by
`Whitener`, *bulk* ones by products in the precision of the sketches. Derivations: docs/selection-proofs.md.
"""

from __future__ import annotations

import math
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Array = TypeVar("Array", Tensor, NDArray[np.float64])

EPS64 = float(np.finfo(np.float64).eps)

#: An exact W z is wrong by at most this share of |z|.
EXACT = 8.0 * EPS64

#: What float32 sketches leave open of a score, as a share of the most that it is made of: a batch of another shape
#: moves a sketch by some 1e-7 of its length. Rows whose scores differ by less tie, and the lowest row number wins.
TIE = 1e-6

#: A bulk cosine is wrong by at most this many epsilons. Empirical, as `bulk_share` is.
COSINE_EPSILONS = 32.0


def bulk_share(p: int, dtype: torch.dtype) -> float:
    """The share of |z| by which bulk products of z with many u, as a vector, are wrong: four times the worst seen."""
    return max(32.0, math.sqrt(p)) * torch.finfo(dtype).eps


def residual_error(residuals: Array, norms: Array, share: float | Array) -> Array:
    """Error of r = |v|^2 where v is wrong by at most a share of |z|: with e = share |z|, 2 e |v| + e^2."""
    wrong = norms * share
    error: Array = wrong * (2.0 * residuals**0.5 + wrong)
    return error


def gain_error(residuals: Array, errors: Array, alpha: float) -> Array:
    """Error of gains log(1 + alpha r), nats, to first order, from the errors of r."""
    error: Array = alpha * errors / (1.0 + alpha * residuals)
    return error
