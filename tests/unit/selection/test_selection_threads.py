"""What a selection sets in the process that it runs in, once: numpy's threads, and float32 that is float32."""

import numpy as np
import pytest
import torch
from threadpoolctl import ThreadpoolController

from workers.selection import Progress, SelectionConfig, select
from workers.selection.arithmetic import _one_blas_thread


def sketches(n: int = 800, p: int = 24) -> np.ndarray:
    return (np.random.default_rng(0).standard_normal((n, p)) - 0.1).astype(np.float32)


def blas_threads() -> set[int]:
    """Threads of the BLAS libraries with pools of their own; numpy's wheels bring one."""
    return {found["num_threads"] for found in ThreadpoolController().select(threading_layer="pthreads").info()}


@pytest.fixture
def as_at_the_start() -> None:
    ThreadpoolController().select(threading_layer="pthreads").limit(limits=2)
    _one_blas_thread.cache_clear()


@pytest.mark.usefixtures("as_at_the_start")
def test_numpy_has_one_thread_from_the_first_selection_on_and_torch_has_its_own() -> None:
    torch_threads, during = torch.get_num_threads(), set()
    assert blas_threads() == {2}

    def look(progress: Progress) -> None:
        if progress.stage == "picking":
            during.update((*blas_threads(), torch.get_num_threads() - torch_threads))

    select(sketches(), SelectionConfig(budget=30), on_progress=look)
    assert during == {1, 0}
    assert blas_threads() == {1}


@pytest.mark.parametrize("penalty", [0.0, 0.1])
def test_the_picks_do_not_depend_on_the_threads(penalty: float) -> None:
    config = SelectionConfig(budget=300, conflict_penalty=penalty)
    limited = select(sketches(3000, 64), config)
    with ThreadpoolController().select(threading_layer="pthreads").limit(limits=2):
        free = select(sketches(3000, 64), config)
    np.testing.assert_array_equal(limited.indices, free.indices)
    np.testing.assert_allclose(limited.marginal_gains, free.marginal_gains, rtol=1e-12)


@pytest.mark.parametrize("where", [torch.backends.cuda.matmul, torch.backends], ids=["one backend", "all backends"])
def test_float32_is_float32_whatever_the_process_allowed_before(where: object) -> None:
    where.fp32_precision = "tf32"  # type: ignore[attr-defined]
    select(sketches(), SelectionConfig(budget=10))
    assert torch.backends.cuda.matmul.fp32_precision == "ieee"
    assert torch.backends.mkldnn.matmul.fp32_precision == "ieee"
