"""What can go wrong between a model and its sketches."""

from __future__ import annotations


def in_brief(error: BaseException) -> str:
    """The class of a library's error and the beginning of its message, on one line."""
    return f"{type(error).__name__}: {' '.join(str(error).split())[:200] or 'it gives no reason'}"


class ModelError(ValueError):
    """The model can't be used; the message is for the user: the field at fault, why, and what to do."""


class ModelTooLarge(ModelError):
    """The model does not fit into the device's memory; the message has the numbers and what to do."""


class SampleTooLarge(RuntimeError):
    """One sample alone does not fit into the device's memory."""

    def __init__(self, row: int, tokens: int) -> None:
        """Name the row (its number in the dataset) and its length in tokens."""
        self.row = row
        self.tokens = tokens
        super().__init__(
            f"row {row} ({tokens} tokens) does not fit into the device's memory on its own: "
            "lower model.max_length, or use a smaller proxy model or a larger device"
        )
