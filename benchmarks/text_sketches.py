"""Sketches of real text: hashed TF-IDF of the functions of installed packages, randomly projected."""

from __future__ import annotations

import re
import sysconfig
import zlib
from collections import Counter
from itertools import pairwise
from pathlib import Path

import torch
from torch import Tensor

_FUNCTION = re.compile(r"^(?=[ \t]*(?:async )?def )", re.MULTILINE)
_WORD = re.compile(r"[A-Za-z]+|\d+|[^\sA-Za-z\d]")
_FEATURES = 2**15


def functions(count: int) -> list[str]:
    """The first functions of the standard library and of installed packages, in the order of their paths."""
    roots = [sysconfig.get_paths()[name] for name in ("stdlib", "purelib")]
    found: list[str] = []
    for root in roots:
        for path in sorted(Path(root).rglob("*.py")):
            pieces = _FUNCTION.split(path.read_text(encoding="utf-8", errors="ignore"))[1:]
            found += [piece[:4000] for piece in pieces if len(piece) > 80]
            if len(found) >= count:
                return found[:count]
    raise RuntimeError(f"only {len(found)} functions are installed, {count} wanted")


def text_sketches(count: int, p: int) -> Tensor:
    """Sketches of functions: word uni- and bigrams, (1 + log tf) idf, projected by random signs.

    Args:
        count: Rows n.
        p: Length of a sketch.

    Returns:
        Shape (n, p), float32. Lengths and overlaps are those of real text; the spectrum decays.
    """
    counts = [_features(text) for text in functions(count)]
    frequency = torch.zeros(_FEATURES)
    for features in counts:
        frequency[list(features)] += 1
    idf = torch.log((1 + count) / (1 + frequency))
    rows = torch.tensor([row for row, features in enumerate(counts) for _ in features])
    columns = torch.tensor([column for features in counts for column in features])
    values = torch.tensor([float(times) for features in counts for times in features.values()]).log1p_()
    sparse = torch.sparse_coo_tensor(
        torch.stack([rows, columns]), values * idf[columns], (count, _FEATURES), check_invariants=True
    )
    generator = torch.Generator().manual_seed(0)
    signs = torch.randint(0, 2, (_FEATURES, p), generator=generator).float() * 2 - 1
    return torch.sparse.mm(sparse, signs) / p**0.5


def _features(text: str) -> Counter[int]:
    words = _WORD.findall(text)
    pairs = [f"{first} {second}" for first, second in pairwise(words)]
    return Counter(zlib.crc32(feature.encode()) % _FEATURES for feature in words + pairs)
