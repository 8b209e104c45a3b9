"""What the exit status of `spice` means."""

from __future__ import annotations

from enum import IntEnum

TABLE = """
Exit status: 0 done; 1 the job failed; 2 wrong usage, or refused by the service (a 4xx answer); 3 the service cannot
be reached or is out of order (a 5xx answer); 4 the job was cancelled; 130 interrupted; 141 the pipe's reader is gone.
"""


class ExitCode(IntEnum):
    """Exit status of every command."""

    OK = 0
    JOB_FAILED = 1
    REFUSED = 2
    UNREACHABLE = 3
    JOB_CANCELLED = 4
    READER_GONE = 141
    """What a shell says of a program that SIGPIPE ends: whoever read the output, as `head` does, has read enough."""


OF_STATE = {
    "succeeded": ExitCode.OK,
    "failed": ExitCode.JOB_FAILED,
    "cancelled": ExitCode.JOB_CANCELLED,
}
"""Exit status for each state that a job ends in."""
