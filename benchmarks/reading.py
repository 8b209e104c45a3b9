"""Rows and tokens a second of a job's reading: parsing, chat template, tokenizer, files of tokens.

    python -m benchmarks.reading [model directory]

What `docs/scaling.md` takes as its rate of reading. One process, as a worker is one; the tokenizer has threads of its
own. The rows are documented functions of the standard library, over and over.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from itertools import cycle, islice
from pathlib import Path

from app.core.settings import Settings
from app.core.uris.datasets import check_uri
from benchmarks.gradients_corpus import documented_functions
from benchmarks.smollm2 import smollm2_directory
from workers.data.corpus import build_corpus
from workers.data.fetch import fetch
from workers.models.tokenizer import TokenizerCache

ROWS = 20_000
MAX_LENGTH = 512


def main() -> None:
    """Print the rate."""
    model = Path(sys.argv[1]) if len(sys.argv) > 1 else smollm2_directory()
    with tempfile.TemporaryDirectory(prefix="spice-bench-") as name:
        settings = Settings(_env_file=None, data_dir=Path(name) / "data", allowed_roots=(name,))
        dataset = Path(name) / "rows.jsonl"
        with dataset.open("w") as file:
            for question, answer in islice(cycle(list(documented_functions())), ROWS):
                file.write(json.dumps({"prompt": question, "response": answer}) + "\n")
        tokenizer = TokenizerCache().get(model).tokenizer
        began = time.monotonic()
        snapshot = fetch(check_uri(dataset.as_uri(), settings), settings)
        corpus = build_corpus(snapshot, tokenizer, columns=None, max_length=MAX_LENGTH, settings=settings)
        seconds = time.monotonic() - began
    print(
        f"{len(corpus):,} rows of {corpus.tokens / len(corpus):.0f} tokens in {seconds:.1f} s: "
        f"{len(corpus) / seconds:,.0f} rows a second, {corpus.tokens / seconds:,.0f} tokens a second"
    )


if __name__ == "__main__":
    main()
