"""Bodies of the picked-rows endpoint."""

from __future__ import annotations

import uuid
from typing import Any, Literal

from pydantic import Field

from app.core.contracts.schema import Response
from app.results.schemas import JOB_ID

EXAMPLE_ROWS: dict[str, Any] = {
    "job_id": JOB_ID,
    "items": [
        {
            "rank": 1,
            "index": 812,
            "marginal_gain": 5.1,
            "epsilon": 0.0,
            "conflict": 0.0,
            "suspect": False,
            "messages": [{"role": "user", "content": "2+2?"}, {"role": "assistant", "content": "4"}],
            "cut": False,
        }
    ],
    "searched": 1,
    "selected": 10000,
    "next_cursor": "182",
}


EXAMPLE_SUSPECTS: dict[str, Any] = {
    "job_id": JOB_ID,
    "items": [
        {
            "rank": 1,
            "index": 77,
            "suspicion": 0.998,
            "loss": 6.1,
            "norm": 41.2,
            "cosine": -0.02,
            "ifd": 1.07,
            "end_loss": 2.1,
            "suspect": True,
            "picked": False,
            "filtered": "suspicion",
            "messages": [{"role": "user", "content": "2+2?"}, {"role": "assistant", "content": "Paris"}],
            "cut": False,
        }
    ],
    "searched": 1,
    "listed": 1000,
    "next_cursor": "241",
}


EXAMPLE_FATE: dict[str, Any] = {
    "job_id": JOB_ID,
    "row": 17,
    "fate": "passed_over",
    "words": [
        "To the whole selection the row would add 0.021 nats; the last pick added 0.31, the first 5.1.",
        "That is next to nothing: what it teaches is in the selection already.",
        "It is much like pick 1: their cosine is 0.981.",
    ],
    "gain_at_end": 0.021,
    "first_gain": 5.1,
    "last_gain": 0.31,
    "nearest": {"rank": 1, "row": 812, "cosine": 0.981, "messages": [{"role": "user", "content": "2+2?"}]},
    "loss": 1.2,
    "norm": 38.1,
    "cosine": 0.31,
    "ifd": 0.7,
    "end_loss": 1.3,
    "suspicion": 0.4,
    "suspect": False,
}


class Message(Response):
    """A turn."""

    role: str
    content: str


class TextRow(Response):
    """A row of a job as text."""

    rank: int = Field(description="From 1, in the order of the list.")
    index: int = Field(description="Row number in the dataset.")
    messages: list[Message] = Field(description="The row as a conversation, cut to 4,000 characters.")
    cut: bool = Field(description="Whether text beyond those was left out.")
    source: str | None = Field(
        default=None, description="Where it is from, as `dataset.source_column` says; null where nothing says."
    )


class PickedRow(TextRow):
    """A pick with its text."""

    marginal_gain: float = Field(description="In nats.")
    epsilon: float = Field(description="In nats, at most 0.")
    conflict: float = Field(description="With the picks before it, in [0, 1].")
    weight: float | None = Field(default=None, description="What it stands for, by methods that give weights.")
    file: str | None = Field(default=None, description="Of a dataset of many files, the one that the row is in.")
    stability: float | None = Field(
        default=None, description="Share of the reselections that pick it, where `selection.stability` asked for some."
    )
    suspect: bool = Field(default=False, description="Whether it looks wrong: see `GET /jobs/{id}/suspects`.")


class SuspectRow(TextRow):
    """A row that may be wrong, with its text."""

    suspicion: float = Field(description="How much it looks wrong beside the other rows, from 0 to 1.")
    loss: float | None = Field(description="Mean loss of a response token, in nats.")
    norm: float | None = Field(description="Length of its gradient's sketch.")
    cosine: float | None = Field(description="Cosine of its sketch with the mean of all.")
    ifd: float | None = Field(
        description="Loss with the prompt over the loss without it; null without `gradients.prompt_effect`."
    )
    end_loss: float | None = Field(
        default=None,
        description="Loss of the token that ends the response, in nats; null where none does, or before it was kept.",
    )
    suspect: bool = Field(description="Whether it looks wrong by itself, not only beside the others.")
    picked: bool = Field(description="Whether it was picked.")
    filtered: str | None = Field(description="The filter and the bound that kept it from being picked.")


class NearestPick(Response):
    """The pick whose sketch has the largest cosine with that of a row."""

    rank: int = Field(description="From 1, in the order of picking.")
    row: int = Field(description="Row number in the dataset.")
    cosine: float
    messages: list[Message] = Field(description="Its text, cut to 4,000 characters; empty once it is not kept.")


class RowFate(Response):
    """What became of a row, and why."""

    job_id: uuid.UUID
    row: int
    fate: Literal["picked", "passed_over", "filtered", "unusable"]
    words: list[str] = Field(description="Why, in sentences.")
    rank: int | None = Field(default=None, description="Of a pick, from 1.")
    reason: str | None = Field(default=None, description="Why it could not be used, or which filter dropped it.")
    gain_at_end: float | None = Field(
        default=None,
        description="What it would add to the whole selection, in nats. Null for picks, for filtered rows, and where "
        "rows x picks x the sketch's length are more than 5e11.",
    )
    first_gain: float | None = Field(default=None, description="What the first pick added, in nats.")
    last_gain: float | None = Field(default=None, description="What the last pick added, in nats.")
    nearest: NearestPick | None = None
    loss: float | None = Field(default=None, description="Mean loss of a response token, in nats.")
    norm: float | None = Field(default=None, description="Length of its gradient's sketch.")
    cosine: float | None = Field(default=None, description="Cosine of its sketch with the mean of all.")
    ifd: float | None = Field(default=None, description="Loss with the prompt over the loss without it.")
    end_loss: float | None = Field(default=None, description="Loss of the token that ends the response, in nats.")
    suspicion: float | None = Field(default=None, description="How much it looks wrong beside the others, 0 to 1.")
    suspect: bool | None = Field(default=None, description="Whether it looks wrong by itself.")


class PickedRows(Response):
    """A page of picked rows, best pick first."""

    job_id: uuid.UUID
    items: list[PickedRow] = Field(description="May be fewer than `limit`, even none, with more to come: see searched.")
    searched: int = Field(description="Rank up to which the rows have been looked through.")
    selected: int = Field(description="Rows in all.")
    next_cursor: str | None = Field(description="Send it as `cursor` to look on; null once all were looked through.")


class Suspects(Response):
    """A page of the rows that look most wrong, the worst first."""

    job_id: uuid.UUID
    items: list[SuspectRow] = Field(description="May be fewer than `limit`, even none, with more to come.")
    searched: int = Field(description="Rank up to which the rows have been looked through.")
    listed: int = Field(description="Rows in the list: the 1,000 that look most wrong.")
    next_cursor: str | None = Field(description="Send it as `cursor` to look on; null once all were looked through.")
