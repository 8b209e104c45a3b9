"""What a client asks of a job: the contract between the service that stores it and the worker that carries it out.

Only dataset, model and budget are required; the defaults serve.
"""

from __future__ import annotations

import uuid
from typing import Any, Literal, Self

from pydantic import ConfigDict, Field, FiniteFloat, ValidationInfo, field_validator, model_validator

from app.core.contracts import presets, schedule_rules
from app.core.contracts.dataset_request import PREFERENCE_HELP, TRAIN_ON_HELP, Columns, DatasetRef, Preference, TrainOn
from app.core.contracts.model_request import Gradients, ModelRef
from app.core.contracts.presets import Preset
from app.core.contracts.schedule import Schedule
from app.core.contracts.schema import Expiry, Metadata, Name, Request, Text, optional
from app.core.contracts.selection_request import ORDERED_METHODS, SelectionSpec
from app.core.settings import LONGEST_S

EXAMPLE_REQUEST: dict[str, Any] = {
    "dataset": {
        "uri": "file:///data/train.jsonl",
        "columns": {"prompt": "instruction", "response": "output"},
    },
    "model": {"uri": "file:///models/smollm2", "dtype": "float32", "max_length": 512},
    "gradients": {"target": "lora", "rank": 8, "sketch_dim": 2048, "seed": 0},
    "selection": {
        "method": "spice",
        "budget": {"fraction": 0.1},
        "alpha": "auto",
        "conflict_penalty": 0.1,
        "early_stop_ratio": None,
    },
    "name": "nightly",
    "metadata": {"team": "search"},
}


Priority = Literal["low", "normal", "high"]
PRIORITIES: dict[Priority, int] = {"low": -1, "normal": 0, "high": 1}


class Limits(Request):
    """How much may be computed for a job; its gradients stop at most one shard later."""

    gradient_tokens: int | None = Field(
        default=None,
        ge=1,
        description="Tokens whose gradients are computed for this job. Which shards are left out is drawn at random, "
        "by `gradients.seed`.",
    )
    seconds: FiniteFloat | None = Field(
        default=None,
        gt=0,
        le=LONGEST_S,
        description="Seconds from the job's start after which no further shard is begun, in the order of the rows.",
    )
    on_limit: Literal["stop", "select"] = Field(
        default="stop",
        description="`stop`: the job fails as `limit-reached`. `select`: it selects from the rows that are scored, and "
        "its result says so. What was computed is kept either way, for later jobs over the same rows.",
    )

    @model_validator(mode="after")
    def _limits_something(self) -> Self:
        if self.gradient_tokens is None and self.seconds is None:
            raise ValueError("must have gradient_tokens or seconds")
        return self


class Webhook(Request):
    """Who is told when the job ends."""

    url: Text = Field(
        description="`https://` on a public host. It gets a POST that is signed as Standard Webhooks has it, and again "
        "until it answers with 2xx."
    )


class JobRequest(Request):
    """A selection job."""

    model_config = ConfigDict(json_schema_extra=optional("selection"))

    dataset: DatasetRef
    train_on: TrainOn | None = Field(default=None, description="Short for `dataset.train_on`.")
    preference: Preference | None = Field(default=None, description="Short for `dataset.preference`.")
    model: ModelRef
    gradients: Gradients = Gradients()
    extends: uuid.UUID | None = Field(
        default=None,
        description="A job of the project that has succeeded, over another state of the data: its picks are kept, "
        "first and in their order, whatever filters say, and `selection.budget` names what is added to them: "
        "rows, tokens, or a fraction of the usable rows of this dataset. Rows are told by what the model reads, so "
        "that job must have the same model, max_length, chat_template, train_on and preference.",
    )
    selection: SelectionSpec = Field(description="May be left out with a `schedule`.")
    preset: Preset | None = Field(
        default=None,
        description="Fills in what the request leaves out of `gradients`, `selection` and `schedule`: the paper's "
        "procedure, or what the code of its authors does. The job shows the request as it was filled.",
    )
    schedule: Schedule | None = Field(
        default=None,
        description="Select window by window and train the proxy on the picks in between, as the paper does. "
        "`selection.budget` is then keep / windows, and the adapter has rank 16 and alpha 32 by default.",
    )
    timeout_s: FiniteFloat | None = Field(
        default=None,
        gt=0,
        le=LONGEST_S,
        description="Seconds that the job may take from its start; then it fails as `timed-out`.",
    )
    limits: Limits | None = None
    priority: Priority = Field(
        default="normal",
        description="Which of the project's jobs workers take first. Projects take turns, whatever the priority.",
    )
    name: Name | None = None
    metadata: Metadata = Field(default_factory=dict)
    expires_at: Expiry | None = Field(
        default=None,
        description="When the job, its results, rows and events are deleted, if it has ended by then; null: by the "
        "service's setting, else never.",
    )
    webhook: Webhook | None = None

    @model_validator(mode="before")
    @classmethod
    def _of_the_dataset(cls, given: Any) -> Any:  # noqa: ANN401 - whatever was sent
        """What is short for a field of the dataset goes there."""
        if not isinstance(given, dict) or not isinstance(given.get("dataset"), dict):
            return given
        given, dataset = dict(given), dict(given["dataset"])
        for name in ("train_on", "preference"):
            value = given.pop(name, None)
            if value is not None and dataset.setdefault(name, value) != value:
                raise ValueError(f"{name} and dataset.{name} must not differ: give one of them")
        return {**given, "dataset": dataset}

    @model_validator(mode="before")
    @classmethod
    def _of_the_schedule(cls, given: Any) -> Any:  # noqa: ANN401 - whatever was sent
        """What a request with a preset leaves out, then one with a schedule."""
        return schedule_rules.filled(presets.filled(given))

    @field_validator("selection")
    @classmethod
    def _room_for_what_must_be_picked(cls, selection: SelectionSpec, info: ValidationInfo) -> SelectionSpec:
        """A budget beside picks that are kept counts what is added to them, and limits are about all."""
        if info.data.get("extends") is None:
            selection.check_room()
        return selection

    @model_validator(mode="after")
    def _what_a_schedule_can_do(self) -> Self:
        if self.schedule is not None:
            schedule_rules.check(self.schedule, self.model_dump())
        return self

    @model_validator(mode="after")
    def _limited_selection_in_one(self) -> Self:
        selects = self.limits is not None and self.limits.on_limit == "select"
        if selects and self.selection.partitions is not None:
            raise ValueError("limits.on_limit 'select' selects in one process: leave selection.partitions out")
        return self

    @model_validator(mode="after")
    def _what_can_extend(self) -> Self:
        if self.extends is None:
            return self
        if self.selection.fisher != "exact":
            raise ValueError(
                f"selection.fisher {self.selection.fisher!r} starts from no picks, and extends keeps some: use "
                "'exact', or leave extends out"
            )
        if self.limits is not None and self.limits.on_limit == "select":
            raise ValueError(
                "limits.on_limit 'select' may leave rows unscored that extends keeps: use 'stop', or leave extends out"
            )
        return self

    @model_validator(mode="after")
    def _prompt_effect_of_ifd(self) -> Self:
        selection = self.selection
        needs = {
            "selection.filters.ifd": selection.filters is not None and selection.filters.ifd is not None,
            "selection.method ifd": selection.method == "ifd",
            "selection.baselines with ifd": "ifd" in selection.baselines,
        }
        for name, needed in needs.items():
            if needed and not self.gradients.prompt_effect:
                raise ValueError(f"{name} needs gradients.prompt_effect: set it to true, or leave ifd out")
        return self

    @model_validator(mode="after")
    def _whole_rows_by_gradients(self) -> Self:
        if self.gradients.loss_over == "row":
            for method in (self.selection.method, *self.selection.baselines):
                if method in ORDERED_METHODS:
                    raise ValueError(
                        f"gradients.loss_over is 'row', and method {method!r} goes by the responses: use 'response', "
                        f"or leave {method} out"
                    )
        return self


class PreviewRequest(Request):
    """Which rows of a registered dataset to show, as which model would read them."""

    model: ModelRef
    columns: Columns | None = Field(default=None, description="As for `POST /jobs`.")
    train_on: TrainOn = Field(default="all", description=TRAIN_ON_HELP)
    preference: Preference = Field(default="chosen", description=PREFERENCE_HELP)
    first_row: int = Field(default=0, ge=0, lt=2**53, description="Number of the first row, from 0.")
    rows: int = Field(default=20, ge=1, le=50, description="How many rows.")
