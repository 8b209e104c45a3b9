"""docs/request.md has every field of a request, as it says."""

from __future__ import annotations

import re
from pathlib import Path

from app.core.contracts.job_request import JobRequest

PAGE = Path(__file__).resolve().parents[3] / "docs" / "request.md"
SECTIONS = ("dataset", "model", "gradients", "selection")


def fields_of_the_page() -> set[str]:
    """Fields of the first column: a bare name belongs to the section of the name before it."""
    found = set()
    for line in PAGE.read_text(encoding="utf-8").splitlines():
        section = ""
        for name in re.findall(r"`([\w.]+)`", line.split("|")[1] if line.startswith("|") else ""):
            section, last = name.rsplit(".", 1) if "." in name else (section, name)
            found.add(f"{section}.{last}" if section else last)
    return found


def fields_of_a_request() -> set[str]:
    top = JobRequest.model_fields
    short = {"train_on", "preference"}  # of the dataset's, and named there
    inside = {f"{section}.{name}" for section in SECTIONS for name in top[section].annotation.model_fields}  # type: ignore[union-attr]
    return (set(top) - set(SECTIONS) - short) | inside


def test_every_field_of_a_request_is_on_its_page_and_no_other() -> None:
    assert fields_of_the_page() == fields_of_a_request()
