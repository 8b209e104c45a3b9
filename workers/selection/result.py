"""What the selector gives back."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

StopReason = Literal["budget", "early_stop", "exhausted"]


@dataclass(frozen=True, slots=True)
class Guarantees:
    """What is proven about a returned set S of k rows; derivations in docs/selection-proofs.md. All sums in nats.

    Attributes:
        certificate: F(S) / optimum_upper_bound, in [0, 1]: a proven lower bound on F(S) / F(S*), where S* is
            the best set of k rows. 1 where the bound is 0 (nothing to be had).
        optimum_upper_bound: F(S) plus the k largest marginal gains left outside S; at least F(S*).
        additive_bound: The upper bound on F(S*) that the a-priori theorem gives, F(S) / rho + k * (lambda + tau) with
            rho = 1 - (1 - 1/k)^k and tau what a pick that ties with the best may be below it. None for methods and
            windows that the theorem does not cover.
        curvature: c = 1 - min_x gain(x | all others) / base gain, in [0, 1]; None if not asked for.
        curvature_factor: (1 - e^-c) / c, a lower bound on F(S) / F(S*) of one global greedy; None if not asked for, or
            if windows or parts were picked from.
        epsilon_bound_violations: Picks whose |epsilon| exceeds its overlap bound. Anything but 0 is a defect.
    """

    certificate: float
    optimum_upper_bound: float
    additive_bound: float | None
    curvature: float | None
    curvature_factor: float | None
    epsilon_bound_violations: int


@dataclass(frozen=True, slots=True)
class Selection:
    """The picked rows in the order of picking, with everything that says how good they are.

    Attributes:
        indices: Row numbers, shape (k,), int64.
        marginal_gains: Gain of each pick given all picks before it, shape (k,), nats; sums to `log_det[-1]`.
            With windows these are the gains in the whole returned sequence, not those inside the window.
        epsilons: `marginal_gains` minus the base gains, shape (k,), nats, never above 0.
        conflicts: Conflict of each pick with the mean of all picks before it, shape (k,), in [0, 1].
        log_det: F after each pick, shape (k,), nats.
        alpha: The scale that was used (the number behind "auto").
        stop_reason: "budget" (all asked for were picked), "early_stop", or "exhausted" (every row left has a
            zero sketch and so nothing to give).
        guarantees: Proven statements about the set.
        weights: What each pick stands for, shape (k,), at least 0; None by methods that give none.
    """

    indices: NDArray[np.int64]
    marginal_gains: NDArray[np.float64]
    epsilons: NDArray[np.float64]
    conflicts: NDArray[np.float64]
    log_det: NDArray[np.float64]
    alpha: float
    stop_reason: StopReason
    guarantees: Guarantees = field(repr=False)
    weights: NDArray[np.float64] | None = None

    @property
    def certificate(self) -> float:
        """Proven lower bound on F(S) / F(S*); see `Guarantees.certificate`."""
        return self.guarantees.certificate
