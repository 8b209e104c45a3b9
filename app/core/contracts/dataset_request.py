"""Which rows a request is about, and how they are read."""

from __future__ import annotations

import uuid
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from app.core.contracts.schema import Request, Storable, Text
from app.core.uris.datasets import Format

ColumnName = Annotated[str, Field(min_length=1, max_length=1000), Storable]
_SHAPES: tuple[tuple[frozenset[str], frozenset[str]], ...] = (  # needed, allowed besides
    (frozenset({"prompt", "response"}), frozenset()),
    (frozenset({"prompt", "completion"}), frozenset()),
    (frozenset({"instruction", "output"}), frozenset({"input"})),
    (frozenset({"messages"}), frozenset()),
    (frozenset({"chosen", "rejected"}), frozenset({"prompt", "input"})),
    (frozenset({"text"}), frozenset()),
)
_FURTHER = frozenset({"system", "history", "tools", "chat_template_kwargs", "label"})


class Columns(Request):
    """Which columns hold what; what is left out is recognised by the column names."""

    prompt: Text | None = Field(default=None, description="Text, or the turns before the completion.")
    response: Text | None = Field(default=None, description="Text, or turns.")
    completion: Text | None = Field(default=None, description="Another name for `response`.")
    instruction: Text | None = None
    input: Text | None = None
    output: Text | None = None
    messages: Text | None = Field(default=None, description="The turns of a conversation.")
    chosen: Text | None = Field(default=None, description="Of a pair of responses, the preferred one.")
    rejected: Text | None = Field(default=None, description="Of a pair of responses, the other one.")
    text: Text | None = Field(default=None, description="Plain text, all of it learned.")
    system: Text | None = Field(default=None, description="The system prompt.")
    history: Text | None = Field(default=None, description="Turns before the prompt, as pairs or messages.")
    tools: Text | None = Field(default=None, description="Descriptions of functions, given to the chat template.")
    chat_template_kwargs: Text | None = Field(default=None, description="Further variables for the chat template.")
    label: Text | None = Field(default=None, description="Whether the response is desired, as KTO has it.")

    @model_validator(mode="after")
    def _one_shape(self) -> Self:
        given = frozenset(self.model_dump(exclude_none=True))
        main = given - _FURTHER
        if not given or (main and not any(needed <= main <= needed | allowed for needed, allowed in _SHAPES)):
            raise ValueError(
                "say which columns hold prompt and response, or instruction, output and perhaps input, or messages, "
                "or chosen and rejected, or text; beside these system, history, tools, chat_template_kwargs and label "
                f"may be said. Said are {', '.join(sorted(given)) or 'none'}"
            )
        return self


TrainOn = Literal["all", "last"]
Preference = Literal["chosen", "rejected", "dpo", "all"]
TRAIN_ON_HELP = "Which replies of a conversation carry loss: every one, or the last alone."
PREFERENCE_HELP = (
    "Of rows with a chosen and a rejected response, which is learned; `dpo` takes the gradient of the DPO loss of the "
    "pair, the model being its own reference. Of rows with a label: `chosen` leaves out those labelled false, "
    "`rejected` those labelled true, `all` none."
)


SOURCE_COLUMNS = ("source", "dataset", "domain")
"""Columns that are taken for a row's source where none is named."""


class DatasetRef(Request):
    """The data: a URI, or the id of a registered dataset."""

    uri: Text | None = Field(default=None, description="As for `POST /datasets`.")
    uris: tuple[Text, ...] | None = Field(
        default=None,
        min_length=1,
        max_length=1000,
        description="Many of them, in the order in which their rows are numbered.",
    )
    id: uuid.UUID | None = Field(default=None, description="A registered dataset.")
    format: Format | None = Field(default=None, description="Overrides what the URI's suffix says.")
    columns: Columns | None = None
    train_on: TrainOn = Field(default="all", description=TRAIN_ON_HELP)
    preference: Preference = Field(default="chosen", description=PREFERENCE_HELP)
    source_column: Annotated[str, Field(max_length=1000), Storable] | None = Field(
        default=None,
        description="Column that says where a row comes from, for the statistics by source; left out, the first of "
        "`source`, `dataset` and `domain` that there is.",
    )
    max_rejected_fraction: float = Field(
        default=0.05, ge=0, le=1, description="The job fails if more of the rows than this can't be used."
    )

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if sum(given is not None for given in (self.uri, self.uris, self.id)) != 1:
            raise ValueError("give the data by uri or uris, or choose a registered dataset by id: one of the three")
        return self
