"""Measures the zoo and writes its table into docs/models.md.

python -m scripts.zoo             # every type of the installed transformers: minutes
python -m scripts.zoo llama mamba # these alone; the other rows stay
python -m scripts.zoo --check     # is the table complete, of this version, and right? Seconds
"""

from __future__ import annotations

import argparse
import logging
import sys
import traceback
import warnings
from pathlib import Path

import transformers

from scripts.zoo.configs import causal_types
from scripts.zoo.measure import Finding, measure
from scripts.zoo.table import problems, read_rows, row, write_rows

PAGE = Path(__file__).parents[2] / "docs" / "models.md"


def main() -> int:
    """Measure or check; the exit status says whether all is well."""
    parser = argparse.ArgumentParser(prog="python -m scripts.zoo", description=__doc__)
    parser.add_argument("kinds", nargs="*", metavar="TYPE", help="types to measure; all if left out")
    parser.add_argument("--check", action="store_true", help="look at the table alone")
    parser.add_argument("--page", type=Path, default=PAGE, help="the page with the table")
    asked = parser.parse_args()
    if not asked.check:
        _measure(asked.kinds or causal_types(), asked.page)
    found = problems(asked.page)
    for line in found:
        sys.stderr.write(f"{line}\n")
    return 1 if found else 0


def _measure(kinds: list[str], page: Path) -> None:
    """One type after the other; a row is written as soon as it is known."""
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    transformers.logging.set_verbosity_error()
    for kind in kinds:
        try:
            finding = measure(kind)
        except Exception as error:  # noqa: BLE001 - what the engine has no message for is what the table must show
            traceback.print_exc()
            finding = Finding(kind, built=f"internal-error: {type(error).__name__}: {error}")
        line = row(finding)
        write_rows(page, read_rows(page) | {kind: line})
        sys.stdout.write(f"{line}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
