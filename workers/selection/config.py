"""What a caller asks of the selector."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Literal, get_args

Fisher = Literal["exact", "reference", "reference_top_k"]
Method = Literal["spice", "fisher", "dpp", "grad_norm", "random"]

#: Methods that add rows one by one by a marginal gain, so that an early stop has a meaning.
GREEDY_METHODS: frozenset[str] = frozenset({"spice", "fisher", "dpp"})


class ConfigError(ValueError):
    """A setting has a value that it cannot have; the message names the setting, the value and the limit."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SelectionConfig:
    """One selection: what to maximise, how far, and how carefully.

    Attributes:
        budget: Number of rows to pick, at least 1; None where `Constraints.token_budget` alone ends the selection.
        conflict_penalty: Lambda >= 0 in `score = gain - lambda * conflict`, in nats; used by "spice" alone.
        alpha: Scale of the objective, > 0, or "auto" for 1 / median squared norm of the non-zero rows.
        early_stop_ratio: Omega in (0, 1], or None. The greedy stops at the first pick whose gain is at most
            omega times the gain of its first pick; that pick is not kept.
        method: "spice" (penalised log-det), "fisher" (log-det alone), "dpp" (greedy MAP of a determinantal
            process on the cosine kernel), "grad_norm" (largest norms) or "random" (uniform).
        seed: Seeds the random method and the partition.
        fisher: "exact", or what reproduces the published code (spice and fisher only): "reference" for its greedy on
            the diagonal score, "reference_top_k" for its largest gains at the empty set.
        curvature: Also compute the curvature of the objective, which needs every row (method with lambda = 0).
        device: Torch device to compute on; None means where the sketches are.

    Raises:
        ConfigError: If a value is out of its range.
    """

    budget: int | None
    conflict_penalty: float = 0.1
    alpha: float | Literal["auto"] = "auto"
    early_stop_ratio: float | None = None
    method: Method = "spice"
    seed: int = 0
    fisher: Fisher = "exact"
    curvature: bool = False
    device: str | None = None

    def __post_init__(self) -> None:
        self._check_names()
        self._check_numbers()
        self._check_combinations()

    @property
    def penalty(self) -> float:
        """Lambda as the method uses it: `conflict_penalty` for "spice", 0 for every other method."""
        return self.conflict_penalty if self.method == "spice" else 0.0

    @property
    def climbs_objective(self) -> bool:
        """Whether each pick is the row of the largest score: the exact greedy, to which the theorems apply."""
        return self.method in {"spice", "fisher"} and self.fisher == "exact"

    def baseline(self, method: Method, *, budget: int | None = None) -> SelectionConfig:
        """The same question put to another method, for a comparison.

        Args:
            method: The method to compare with.
            budget: Its budget in rows; by default this config's.

        Returns:
            A copy without the settings that the other method does not know (early stop, reference score).
        """
        return replace(
            self,
            method=method,
            budget=self.budget if budget is None else budget,
            early_stop_ratio=None,
            fisher="exact",
            curvature=False,
        )

    def _check_names(self) -> None:
        allowed: dict[str, tuple[str, ...]] = {
            "method": get_args(Method),
            "fisher": get_args(Fisher),
        }
        for name, values in allowed.items():
            value = getattr(self, name)
            if value not in values:
                raise ConfigError(f"{name} is {value!r}; it must be one of {', '.join(values)}")

    def _check_numbers(self) -> None:
        if self.budget is not None and self.budget < 1:
            raise ConfigError(f"budget is {self.budget}; it must be at least 1")
        if not (self.conflict_penalty >= 0 and math.isfinite(self.conflict_penalty)):
            raise ConfigError(f"conflict_penalty is {self.conflict_penalty}; it must be finite and at least 0")
        if isinstance(self.alpha, str):
            if self.alpha != "auto":
                raise ConfigError(f"alpha is {self.alpha!r}; it must be a positive number or 'auto'")
        elif not (self.alpha > 0 and math.isfinite(self.alpha)):
            raise ConfigError(f"alpha is {self.alpha}; it must be a positive finite number or 'auto'")
        if self.early_stop_ratio is not None and not 0 < self.early_stop_ratio <= 1:
            raise ConfigError(f"early_stop_ratio is {self.early_stop_ratio}; it must be in (0, 1] or None")

    def _check_combinations(self) -> None:
        if self.early_stop_ratio is not None and self.method not in GREEDY_METHODS:
            raise ConfigError(f"early_stop_ratio needs marginal gains; method {self.method!r} has none")
        if self.fisher != "exact" and self.method not in {"spice", "fisher"}:
            raise ConfigError(f"fisher={self.fisher!r} is a score of spice and fisher; method is {self.method!r}")
        if self.curvature and (self.penalty > 0 or self.method not in {"spice", "fisher"}):
            raise ConfigError("curvature bounds the plain log-det greedy; it needs spice or fisher with lambda = 0")
