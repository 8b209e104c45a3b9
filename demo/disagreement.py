"""Rows that contradict one another: two reviewers who never agree. `python -m demo.disagreement FILE` writes them."""

from __future__ import annotations

import argparse
import json
import sys
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING

from demo.atomic import replacing
from demo.functions import function_rows
from demo.rows import shuffled

if TYPE_CHECKING:
    from collections.abc import Sequence

STATEMENTS = 40
LONGEST_BYTES = 140
"""Of a question and its answer together, so that the gradients of all rows take a minute or two."""


def disagreement() -> list[dict[str, str]]:
    """Pairs with the columns prompt, chosen, rejected and source: what one reviewer prefers, the other rejects."""
    explained = [row for row in function_rows() if row.source == "name-to-explanation" and row.is_clean]
    short = shuffled(row for row in explained if row.size <= LONGEST_BYTES)[:STATEMENTS]
    rows = []
    for row in short:
        name = row.prompt.split("`")[1]
        prompt = f"Does `{name}` do this in Python? {row.response}"
        for reviewer, chosen, rejected in (("first reviewer", "Yes.", "No."), ("second reviewer", "No.", "Yes.")):
            rows.append({"prompt": prompt, "chosen": chosen, "rejected": rejected, "source": reviewer})
    return sorted(rows, key=lambda row: sha256(json.dumps(row).encode()).digest())


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m demo.disagreement", description=__doc__)
    parser.add_argument("file", type=Path, help="where the rows go, as JSON lines")
    path = parser.parse_args(arguments).file
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as temporary, temporary.open("w", encoding="utf-8") as file:
        for row in disagreement():
            file.write(json.dumps(row, ensure_ascii=False) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
