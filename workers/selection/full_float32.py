"""Products of float32 in full float32 while a selection runs.

A process may have allowed torch TF32 or bfloat16 inside float32 products, as training scripts do. What that loses can
be a hundred times what the intervals of `residuals.py` allow for, and bounds made of such products bound nothing.
"""

from __future__ import annotations

from contextlib import contextmanager
from threading import Lock
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from collections.abc import Iterator

_backends: Any = torch.backends  # torch's own annotations know only some of what is in there

#: Where torch keeps the permissions, for a GPU and for oneDNN on a processor.
_MATMULS = (_backends.cuda.matmul, _backends.mkldnn.matmul)

#: Values that permit nothing.
_FULL = ("none", "ieee")


class _Permissions:
    """What was permitted before the first of the selections that are running now."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._running = 0
        self._found: list[str] = []

    def withdraw(self) -> None:
        with self._lock:
            self._running += 1
            if self._running > 1:
                return
            self._found = [matmul.fp32_precision for matmul in _MATMULS]
            for matmul, found in zip(_MATMULS, self._found, strict=True):
                if found not in _FULL:
                    matmul.fp32_precision = "ieee"

    def give_back(self) -> None:
        with self._lock:
            self._running -= 1
            if self._running > 0:
                return
            for matmul, found in zip(_MATMULS, self._found, strict=True):
                if found not in _FULL:
                    matmul.fp32_precision = "none"  # which is to follow torch.backends.fp32_precision
                    if matmul.fp32_precision != found:
                        matmul.fp32_precision = found


_permissions = _Permissions()


@contextmanager
def full_float32() -> Iterator[None]:
    """Forbid TF32 and bfloat16 inside float32 products in this process for a while; also a decorator."""
    _permissions.withdraw()
    try:
        yield
    finally:
        _permissions.give_back()
