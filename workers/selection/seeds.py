"""Random signs and permutations that are the same on every machine, device and library version.

They come from the raw words of Philox, a counter-based generator whose stream numpy guarantees; what numpy
makes of those words (``Generator.integers`` and the like) it does not.
"""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray


def random_words(count: int, *, seed: int, role: str, layer: str) -> NDArray[np.uint64]:
    """Words of the stream that belongs to (seed, role, layer), shape (count,)."""
    name = json.dumps([seed, role, layer]).encode()
    key = int.from_bytes(hashlib.sha256(name).digest()[:16], "little")
    words: NDArray[np.uint64] = np.random.Philox(key=key).random_raw(count)
    return words


def random_signs(count: int, *, seed: int, role: str, layer: str) -> NDArray[np.int8]:
    """Independent fair signs, +1 or -1, shape (count,)."""
    words = random_words((count + 63) // 64, seed=seed, role=role, layer=layer)
    bits = np.unpackbits(words.astype("<u8").view(np.uint8), bitorder="little")[:count]
    return (2 * bits.astype(np.int8) - 1).astype(np.int8)


def random_permutation(count: int, *, seed: int, role: str, layer: str) -> NDArray[np.int64]:
    """A uniform permutation of 0..count-1: the order of as many random keys, shape (count,)."""
    return np.argsort(random_words(count, seed=seed, role=role, layer=layer), kind="stable")
