"""A selection that trains the proxy as it goes: what a client asks of it, and what one stage hands to the next."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, model_validator

from app.core.contracts.schema import Request, Response


class Schedule(Request):
    """Windows of a shuffled pool, each picked from by itself, and training on the picks between them."""

    windows: int = Field(default=120, ge=1, le=100_000, description="Candidates of a window; the last may have fewer.")
    keep: int = Field(
        default=12,
        ge=1,
        le=100_000,
        description="Picks of each window; of a smaller last window in proportion, rounded down, at least 1. A window "
        "keeps all rows that `constraints.include` names.",
    )
    train_every: int = Field(
        default=10,
        ge=1,
        le=1_000_000_000,
        description="Windows from one training to the next, which takes the picks of these windows. More than there "
        "are: the proxy is never trained.",
    )
    epochs: int = Field(
        default=1, ge=1, le=100, description="Steps of a training, each over all picks of its windows at once."
    )
    learning_rate: FiniteFloat = Field(
        default=2e-4, gt=0, le=1, description="The largest, of AdamW; it falls in a line over the rest of the steps."
    )
    weight_decay: FiniteFloat = Field(default=0.01, ge=0, le=1)
    warmup_ratio: FiniteFloat = Field(
        default=0.03, ge=0, le=1, description="Share of all steps over which the learning rate rises, rounded up."
    )
    seed: int = Field(default=0, ge=0, lt=2**63, description="Of the order in which rows come into windows.")

    @model_validator(mode="after")
    def _keeps_some(self) -> Self:
        if self.keep > self.windows:
            raise ValueError(
                f"keep is {self.keep}, more than the {self.windows} candidates of a window: lower keep, or raise "
                "windows"
            )
        return self

    @property
    def fraction(self) -> float:
        """Share of the pool that is picked."""
        return self.keep / self.windows


class ScoredWindow(BaseModel):
    """A window that was picked from.

    Attributes:
        rows: Its candidates with a finite gradient.
        steps: Steps that the proxy had been trained for.
        loss: Mean loss of a response token over these candidates, each counted once, in nats; None without any.
        alpha: Scale of the information in this window.
        stop_reason: Why no more were picked.
        picks: Row numbers in the order of picking.
        gains: Of each pick, given the picks of its window before it, in nats.
        epsilons: Gain less the gain that it had alone, in nats.
        conflicts: With the mean of the picks of its window before it, 0 to 1.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    rows: int
    steps: int
    loss: float | None
    alpha: float | None
    stop_reason: Literal["budget", "early_stop", "exhausted"]
    picks: tuple[int, ...] = ()
    gains: tuple[float, ...] = ()
    epsilons: tuple[float, ...] = ()
    conflicts: tuple[float, ...] = ()


class WindowLimits(BaseModel):
    """What the picks of all windows keep to. Rows are named by their places among the samples.

    Attributes:
        include: Rows that are picked first in their windows, in this order.
        barred: Rows that are no candidates, ascending.
        near_cosine: No row is picked whose sketch has this cosine or more with that of a pick of its window.
        sources: Names of the sources whose shares are limited; empty where none is.
        of_row: The source of each row, as a place in `sources`.
        least: Smallest share of each source among the picks.
        most: Largest share of each.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    include: tuple[int, ...] = ()
    barred: tuple[int, ...] = ()
    near_cosine: float | None = None
    sources: tuple[str, ...] = ()
    of_row: tuple[int, ...] = ()
    least: tuple[float, ...] = ()
    most: tuple[float, ...] = ()


class TrainedStep(BaseModel):
    """A step of the proxy's training.

    Attributes:
        windows: Windows that had been picked from.
        rows: Picks that it took.
        loss: Mean loss of their response tokens before the step, in nats.
        learning_rate: Of the step.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    windows: int
    rows: int
    loss: float
    learning_rate: float


class ScheduleState(BaseModel):
    """How far a schedule has come; the worker that selects and publishes gets the last of them."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    windows: tuple[ScoredWindow, ...] = ()
    steps: tuple[TrainedStep, ...] = ()


class ScheduleCurve(Response):
    """A schedule window by window, in the order of picking; of more than 2,000 windows, means of as many runs of them.

    Gains, epsilons and conflicts are of picks against the picks of their own window.
    """

    window: list[int] = Field(description="Number of the window, from 0; of several, of the first.")
    steps: list[int] = Field(description="Steps that the proxy had been trained for.")
    picked: list[float] = Field(description="Rows picked of a window.")
    log_det: list[float] = Field(description="Information of a window's picks, in nats.")
    conflict: list[float | None] = Field(description="Mean conflict of its picks, 0 to 1; null where there are none.")
    epsilon: list[float | None] = Field(description="Their mean epsilon, in nats, likewise.")
    loss: list[float | None] = Field(
        description="Mean loss of a response token over the window's candidates, in nats, as the proxy was then."
    )
    trained_after: list[int] = Field(description="Windows before each step of training.")
    train_loss: list[float] = Field(description="Mean loss of a response token in each step, in nats, before it.")
    learning_rate: list[float] = Field(description="Of each step.")


class ScheduleFound(Response):
    """What a schedule came to."""

    windows: int
    steps: int = Field(description="Steps that the proxy was trained for.")
    conflict_first: float | None = Field(description="Mean conflict of the picks in the first tenth of the windows.")
    conflict_last: float | None = Field(description="The same in the last tenth.")
    loss_first: float | None = Field(
        description="Mean loss of a response token over the candidates in the first tenth of the windows, in nats."
    )
    loss_last: float | None = Field(description="The same in the last tenth.")
    conflict_gain: float | None = Field(
        description="Spearman's rank correlation of conflict and gain over the picks, but for the first of each "
        "window, which has nothing to be in conflict with; null where one of both never changes."
    )
    conflict_epsilon: float | None = Field(description="The same of conflict and the size of epsilon.")
