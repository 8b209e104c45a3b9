"""What a process is set to for a selection, once: threads, and float32 that is float32."""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
from threadpoolctl import ThreadpoolController

_backends: Any = torch.backends  # torch's own annotations know only some of what is in there


def set_arithmetic() -> None:
    """Give numpy's BLAS one thread, and forbid TF32 and bfloat16 inside float32 products, from now on.

    The front's products are small and come thousands a second, between torch's large ones. An OpenBLAS with threads of
    its own keeps them spinning after each, and they take the cores from torch's: a greedy then takes twice as long.
    (An OpenBLAS on OpenMP, or MKL, does not spin so, and where one is loaded it may be torch's.) Products in TF32 lose
    a hundred times what `rounding.py` allows for: bounds made of them bound nothing.
    """
    _one_blas_thread()
    _backends.cuda.matmul.fp32_precision = _backends.mkldnn.matmul.fp32_precision = "ieee"


@cache
def _one_blas_thread() -> None:
    """Finding the libraries takes milliseconds, so once a process."""
    ThreadpoolController().select(threading_layer="pthreads").limit(limits=1)
