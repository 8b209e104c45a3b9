"""What a client asks of a proof: whether training on a selection gives a better model than training on other rows."""

from __future__ import annotations

import uuid
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, FiniteFloat, StringConstraints, ValidationError, model_validator

from app.core.contracts.dataset_request import DatasetRef
from app.core.contracts.job_request import JobRequest, Webhook
from app.core.contracts.model_request import Gradients, ModelRef
from app.core.contracts.schema import Expiry, Metadata, Name, Request, Storable
from app.core.contracts.selection_request import Method, SelectionSpec
from app.core.settings import LONGEST_S

SELECTED, RANDOM, RANDOM_TOKENS, ALL, NONE = "selected", "random", "random_tokens", "all", "none"
NamedArm = Literal["selected", "random", "random_tokens", "all", "none"]
ArmName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$"), Storable]
LOSS = "loss"
DEFAULT_EFFECTS = {LOSS: 0.01, "exact_match": 0.02, "choice": 0.02}
"""The smallest effects that matter unless the request names others: nats a token, and shares of the rows."""
MOST_INDICES = 1_000_000

EXAMPLE_PROOF_REQUEST: dict[str, Any] = {
    "job": "7d5fa1b4-0d6e-4a0e-8a35-5a3a0a9be4a1",
    "arms": ["selected", "random", "random_tokens", {"method": "fisher"}],
    "held_out": {"fraction": 0.1, "seed": 0},
    "seeds": 5,
    "training": {"method": "lora", "rank": 8, "epochs": 3, "learning_rate": 2e-4, "batch_tokens": 4096},
    "metrics": ["loss", {"name": "exact_match", "max_tokens": 32}],
    "smallest_effect": {"loss": 0.01},
    "premise": {"subsets": 16},
}


_OF_A_JOB_ALONE = {"baselines", "baseline_repeats", "sweep", "stability", "partitions", "curvature"}
"""What a selection says of how it is made, or of what else is told: not which rows an arm trains on."""


class MethodArm(Request):
    """The picks of another method, or of the same one with other settings, on the same sketches and budget."""

    name: ArmName | None = Field(default=None, description="Left out: the method's name.")
    method: Method | None = None
    selection: dict[str, Any] | None = Field(
        default=None, description="Fields of `selection` that differ from the proof's own."
    )

    @model_validator(mode="after")
    def _something_differs(self) -> Self:
        if self.method is None and self.selection is None:
            raise ValueError("must have a method, or a selection that differs, or a name and indices")
        if self.method is not None and "method" in (self.selection or {}):
            raise ValueError("names its method twice: leave selection.method out")
        for name in ("target", "protect", "sweep", "stability"):
            if (self.selection or {}).get(name) is not None:
                raise ValueError(f"selection.{name} is that of the proof's own selection: leave it out, or send null")
        for name in ("baselines", "curvature", "partitions"):
            if (self.selection or {}).get(name):
                raise ValueError(f"selection.{name} has no part in an arm, which is selected at once: leave it out")
        if self.name is None and self.method is None and "method" not in (self.selection or {}):
            raise ValueError("must have a name, since its method is that of the arm `selected`")
        return self

    @property
    def label(self) -> str:
        """The arm's name."""
        return self.name or str(self.method or (self.selection or {})["method"])

    def settings(self, base: SelectionSpec) -> SelectionSpec:
        """The proof's selection with what differs.

        Raises:
            ValidationError: The two do not go together.
            ValueError: It names an evaluation set of its own, which nobody has read.
        """
        changed = {**({} if self.method is None else {"method": self.method}), **(self.selection or {})}
        plain = base.model_dump(mode="json", exclude_unset=True, exclude=_OF_A_JOB_ALONE)
        found = SelectionSpec.model_validate({**plain, **changed})
        if found.evaluation_set not in (None, base.evaluation_set):
            raise ValueError(
                "selection.constraints.decontaminate is not that of the proof's own selection, which alone is read: "
                "leave it out, or name that one"
            )
        return found

    def check(self, job: JobRequest) -> None:
        """Hold the arm's selection to what a job of its own would be held to.

        Args:
            job: That of the proof's own selection.

        Raises:
            ValidationError: A job with the arm's selection would be refused.
            ValueError: As for `settings`.
        """
        JobRequest(
            dataset=job.dataset, model=job.model, gradients=job.gradients, selection=self.settings(job.selection)
        )


class IndicesArm(Request):
    """Rows that the client has chosen."""

    name: ArmName
    indices: tuple[Annotated[int, Field(ge=0, lt=2**53)], ...] = Field(
        min_length=1, max_length=MOST_INDICES, description="Row numbers in the dataset's file, from 0."
    )

    @model_validator(mode="after")
    def _each_once(self) -> Self:
        if len(set(self.indices)) != len(self.indices):
            raise ValueError("indices must name each row once")
        return self

    @property
    def label(self) -> str:
        """The arm's name."""
        return self.name


Arm = NamedArm | IndicesArm | MethodArm


def arm_label(arm: Arm) -> str:
    """The name under which an arm is reported."""
    return arm if isinstance(arm, str) else arm.label


def _one_kind_of_arm(value: object) -> object:
    """Tell the kinds apart before they are read, so that an error is about the kind that was meant."""
    if isinstance(value, str):
        if value not in (SELECTED, RANDOM, RANDOM_TOKENS, ALL, NONE):
            raise ValueError(
                f"is {value!r}, and the arms with a name are selected, random, random_tokens, all and none: "
                'others are {"method": "..."} or {"name": "...", "indices": [...]}'
            )
        return value
    if isinstance(value, dict):
        return (IndicesArm if "indices" in value else MethodArm).model_validate(value)
    return value


class HeldOut(Request):
    """The rows that models are scored on, and that no arm trains on."""

    fraction: FiniteFloat | None = Field(default=None, gt=0, lt=1, description="Of the dataset's usable rows.")
    seed: int = Field(default=0, ge=0, lt=2**63, description="Of the draw.")
    dataset: DatasetRef | None = Field(
        default=None, description="Held-out rows of their own; those that the pool has too are dropped and counted."
    )

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if (self.fraction is None) == (self.dataset is None):
            raise ValueError("must have either fraction (over 0, under 1) or dataset")
        return self


class Training(Request):
    """How each run trains; all runs alike."""

    method: Literal["lora"] = "lora"
    rank: int = Field(default=8, ge=1, le=256)
    epochs: int = Field(default=3, ge=1, le=100)
    learning_rate: FiniteFloat = Field(default=2e-4, gt=0, le=1, description="The largest; it falls as a cosine.")
    batch_tokens: int = Field(
        default=4096, ge=1, le=1 << 24, description="Tokens of a step on average, by which the steps are counted."
    )
    keep_adapters: bool = Field(default=False, description="Keep the trained adapters in the artifact store.")


class Loss(Request):
    """Mean loss of a held-out row's response tokens, in nats."""

    name: Literal["loss"]


class ExactMatch(Request):
    """Whether the greedy continuation of a row's prompt is its response, but for white space around both."""

    name: Literal["exact_match"]
    max_tokens: int = Field(default=32, ge=1, le=4096)


class Choice(Request):
    """Whether a row's response is the likeliest of its options."""

    name: Literal["choice"]
    options: Annotated[str, Field(min_length=1, max_length=1000), Storable] = Field(
        default="choices", description="Column that holds a list of texts, one of which is the row's response."
    )


def _named(value: object) -> object:
    return {"name": value} if isinstance(value, str) else value


Metric = Annotated[
    Annotated[Loss | ExactMatch | Choice, Field(discriminator="name")],
    BeforeValidator(_named, json_schema_input_type=str | dict[str, Any]),
]


class PremiseSpec(Request):
    """Train random subsets, and mixtures of random and selected rows, to see whether more information trains better."""

    subsets: int = Field(default=16, ge=4, le=200)


class ProofRequest(Request):
    """A proof."""

    job: uuid.UUID | None = Field(
        default=None, description="A selection job whose dataset, model, gradients and selection are taken."
    )
    dataset: DatasetRef | None = None
    model: ModelRef | None = None
    gradients: Gradients | None = Field(default=None, description="Left out: the defaults, or the job's.")
    selection: SelectionSpec | None = None
    arms: tuple[Annotated[Arm, BeforeValidator(_one_kind_of_arm)], ...] = Field(
        default=("selected", "random"), min_length=1, max_length=16, description="What is trained on, each by its name."
    )
    against: ArmName = Field(default=RANDOM, description="The arm that the others are compared with.")
    held_out: HeldOut = HeldOut(fraction=0.1)
    seeds: int = Field(default=5, ge=2, le=100, description="Runs of each arm; one has no spread.")
    training: Training = Training()
    metrics: tuple[Metric, ...] = Field(default=(Loss(name="loss"),), min_length=1, max_length=8)
    smallest_effect: dict[str, Annotated[FiniteFloat, Field(gt=0)]] = Field(
        default_factory=dict, description="By metric: a smaller difference does not matter. Named beforehand."
    )
    premise: PremiseSpec | None = None
    timeout_s: FiniteFloat | None = Field(
        default=None,
        gt=0,
        le=LONGEST_S,
        description="Seconds that the proof may take from its start, its runs included; then it fails as `timed-out`.",
    )
    name: Name | None = None
    metadata: Metadata = Field(default_factory=dict)
    expires_at: Expiry | None = Field(
        default=None,
        description="When the proof, its runs and its files are deleted, if it has ended by then; null: by the "
        "service's setting, else never.",
    )
    webhook: Webhook | None = None

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        own = {name for name in ("dataset", "model", "gradients", "selection") if getattr(self, name) is not None}
        if self.job is not None and own:
            raise ValueError(f"has a job, whose {', '.join(sorted(own))} would be taken: leave either out")
        if self.job is None and (missing := {"dataset", "model", "selection"} - own):
            raise ValueError(f"must have {', '.join(sorted(missing))}, or the job that has them")
        return self

    @model_validator(mode="after")
    def _arms_differ(self) -> Self:
        labels = self.labels
        twice = sorted({label for label in labels if labels.count(label) > 1})
        if twice:
            raise ValueError(f"arms must have a name each, and {', '.join(twice)} is there twice")
        own = [arm.label for arm in self.arms if not isinstance(arm, str)]
        if taken := sorted({SELECTED, RANDOM_TOKENS, ALL, NONE}.intersection(own)):
            raise ValueError(f"arms can't name rows or methods {', '.join(taken)}: that is an arm of the service")
        if self.against not in labels:
            raise ValueError(
                f"against names {self.against!r}, and the arms are {', '.join(labels)}: add it, or name one of them"
            )
        return self

    @model_validator(mode="after")
    def _settings_fit(self) -> Self:
        try:
            job = self.own_job
        except ValidationError as error:
            raise ValueError(_said(error)) from None
        if job is None:
            return self
        for arm in self.arms:
            if isinstance(arm, MethodArm):
                try:
                    arm.check(job)
                except ValueError as error:
                    raise ValueError(f"arm {arm.label}: {_said(error)}") from None
        return self

    @model_validator(mode="after")
    def _effects_of_metrics(self) -> Self:
        names = [metric.name for metric in self.metrics]
        if len(set(names)) != len(names):
            raise ValueError("metrics must name each metric once")
        if unknown := sorted(set(self.smallest_effect) - set(names)):
            raise ValueError(f"smallest_effect names {', '.join(unknown)}, and the metrics are {', '.join(names)}")
        return self

    @property
    def own_job(self) -> JobRequest | None:
        """The job that computes the sketches of the proof; None where the request names one that is there.

        Raises:
            ValidationError: Such a job would be refused.
        """
        if self.dataset is None or self.model is None or self.selection is None:
            return None
        gradients = self.gradients or Gradients()
        return JobRequest(dataset=self.dataset, model=self.model, gradients=gradients, selection=self.selection)

    @property
    def labels(self) -> list[str]:
        """The arms' names in order."""
        return [arm_label(arm) for arm in self.arms]

    @property
    def effects(self) -> dict[str, float]:
        """The smallest effect of each metric."""
        return {
            metric.name: self.smallest_effect.get(metric.name, DEFAULT_EFFECTS[metric.name]) for metric in self.metrics
        }


def method_of(arm: Arm, own: Method) -> Method | None:
    """The method whose picks an arm trains on, with the settings of the selection; None for other rows.

    Args:
        arm: The arm.
        own: The method of the selection.
    """
    if isinstance(arm, MethodArm):
        return arm.method if not arm.selection else None
    return {SELECTED: own, RANDOM: "random"}.get(arm) if isinstance(arm, str) else None


def _said(error: ValueError) -> str:
    """Why something was refused, without pydantic's own words around it."""
    said = str(error.errors()[0]["msg"]) if isinstance(error, ValidationError) else str(error)
    return said.removeprefix("Value error, ")
