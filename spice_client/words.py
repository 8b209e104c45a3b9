"""Ids, times and proofs in words: what the shell, a notebook and an interactive session say of them."""

from __future__ import annotations

from datetime import timedelta

SHORT = 8
"""Characters of an id that tell jobs apart; every command takes them."""


def short(job_id: object) -> str:
    """The first characters of an id."""
    return str(job_id)[:SHORT]


def duration(seconds: float) -> str:
    """Seconds as `4 s`, `3:07` or `2:10:00`."""
    whole = round(seconds)
    if whole < 60:  # noqa: PLR2004 - a minute
        return f"{whole} s"
    text = str(timedelta(seconds=whole))
    return text.removeprefix("0:").removeprefix("0")


def certificate_words(value: float) -> str:
    """What a certificate's value proves."""
    return f"{value:.4f}: no subset of this size has more than {1 / value:.3f} times the information"
