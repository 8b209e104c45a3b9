"""numpy's BLAS on one thread while a greedy runs.

The front's products are small and come thousands a second, between torch's large ones. OpenBLAS keeps its threads
spinning after each, and they take the cores from torch's pool: on two cores the greedy then takes more than twice
as long as with no second thread for numpy at all.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

from threadpoolctl import ThreadpoolController

if TYPE_CHECKING:
    from contextlib import AbstractContextManager


@cache
def _pools() -> ThreadpoolController:
    """The thread pools of the libraries that are loaded; finding them takes milliseconds."""
    return ThreadpoolController()


def one_blas_thread() -> AbstractContextManager[object]:
    """Limit numpy's BLAS in this process to one thread for a while; torch's own threads stay as they are."""
    limit: AbstractContextManager[object] = _pools().limit(limits=1, user_api="blas")
    return limit
