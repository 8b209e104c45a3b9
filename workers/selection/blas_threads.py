"""numpy's BLAS on one thread while a greedy runs.

The front's products are small and come thousands a second, between torch's large ones. OpenBLAS keeps its threads
spinning after each, and they take the cores from torch's pool: on two cores the greedy then takes more than twice
as long as with no second thread for numpy at all.
"""

from __future__ import annotations

from contextlib import contextmanager
from functools import cache
from threading import Lock
from typing import TYPE_CHECKING

from threadpoolctl import ThreadpoolController

if TYPE_CHECKING:
    from collections.abc import Iterator

#: Held by the greedy that has set the limit. It belongs to the process: had each greedy put back what it found, one
#: that began under another's limit and ended after it would have put back 1 for good.
_LIMITED = Lock()


@cache
def _pools() -> ThreadpoolController:
    """The BLAS libraries loaded with a pool of their own, as numpy's wheels have it; finding them takes milliseconds.

    An OpenBLAS on OpenMP, or MKL, does not spin so, and where one is loaded it may be torch's.
    """
    return ThreadpoolController().select(threading_layer="pthreads")


@contextmanager
def one_blas_thread() -> Iterator[None]:
    """Limit numpy's BLAS in this process to one thread for a while; torch's own threads stay as they are.

    Inside another such while, of this thread or of another, it does nothing: the outer one gives back what it found.
    """
    if not _LIMITED.acquire(blocking=False):
        yield
        return
    try:
        with _pools().limit(limits=1):
            yield
    finally:
        _LIMITED.release()
