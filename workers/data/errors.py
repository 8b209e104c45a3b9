"""The two ways in which reading a dataset ends early."""

from __future__ import annotations

LONGEST_MESSAGE = 2000


class DatasetError(Exception):
    """A dataset that cannot be used; the job or registration fails with this message.

    Attributes:
        reason_code: A stable word for programs, such as ``missing``, ``too_large`` or ``unknown_column``.
        message: A sentence for people: what was found, what the limit is, what to do.
    """

    def __init__(self, reason_code: str, message: str) -> None:
        # Parts of a message come from the file; the database holds neither NUL nor half a surrogate pair.
        message = message.replace("\0", "\\0").encode("utf-8", "backslashreplace").decode()[:LONGEST_MESSAGE]
        super().__init__(message)
        self.reason_code = reason_code
        self.message = message

    def __reduce__(self) -> tuple[type[DatasetError], tuple[str, str]]:
        return type(self), (self.reason_code, self.message)
