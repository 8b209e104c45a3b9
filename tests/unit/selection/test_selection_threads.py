"""What a selection does to the settings of the process that it runs in: nothing that stays."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from threading import Event

import numpy as np
import pytest
import torch
from threadpoolctl import ThreadpoolController

from workers.selection import Progress, SelectionCancelledError, SelectionConfig, greedy, select
from workers.selection.blas_threads import one_blas_thread


def sketches(n: int = 800, p: int = 24) -> np.ndarray:
    return (np.random.default_rng(0).standard_normal((n, p)) - 0.1).astype(np.float32)


def blas_threads() -> list[int]:
    """Threads of the BLAS libraries with pools of their own; numpy's wheels bring one."""
    return [found["num_threads"] for found in ThreadpoolController().select(threading_layer="pthreads").info()]


@pytest.fixture
def two_blas_threads() -> Iterator[None]:
    with ThreadpoolController().select(threading_layer="pthreads").limit(limits=2):
        assert set(blas_threads()) == {2}
        yield
        assert set(blas_threads()) == {2}


@pytest.mark.usefixtures("two_blas_threads")
def test_numpy_has_one_thread_while_rows_are_picked_and_then_what_it_had() -> None:
    torch_threads, during = torch.get_num_threads(), set()

    def look(progress: Progress) -> None:
        if progress.stage == "picking":
            during.update((*blas_threads(), torch.get_num_threads() - torch_threads))

    select(sketches(), SelectionConfig(budget=30), on_progress=look)
    assert during == {1, 0}
    with pytest.raises(SelectionCancelledError):
        select(sketches(), SelectionConfig(budget=30), on_progress=look, should_stop=lambda: len(during) > 0)


@pytest.mark.usefixtures("two_blas_threads")
def test_selections_inside_and_beside_one_another_leave_no_limit_behind() -> None:
    begun, ended = Event(), Event()

    def later() -> None:
        with one_blas_thread():
            begun.set()
            assert ended.wait(10)

    with ThreadPoolExecutor() as threads:
        with one_blas_thread(), one_blas_thread():
            other = threads.submit(later)
            assert begun.wait(10)
            assert set(blas_threads()) == {1}
        assert set(blas_threads()) == {2}
        ended.set()
        other.result()
    with one_blas_thread():
        assert set(blas_threads()) == {1}


@pytest.mark.parametrize("penalty", [0.0, 0.1])
def test_the_picks_do_not_depend_on_the_threads(penalty: float, monkeypatch: pytest.MonkeyPatch) -> None:
    config = SelectionConfig(budget=300, conflict_penalty=penalty)
    limited = select(sketches(3000, 64), config)
    monkeypatch.setattr(greedy, "one_blas_thread", nullcontext)
    free = select(sketches(3000, 64), config)
    np.testing.assert_array_equal(limited.indices, free.indices)
    np.testing.assert_allclose(limited.marginal_gains, free.marginal_gains, rtol=1e-12)


@pytest.fixture(params=["one backend", "all backends"])
def tf32_allowed(request: pytest.FixtureRequest) -> Iterator[None]:
    where = torch.backends.cuda.matmul if request.param == "one backend" else torch.backends
    before = where.fp32_precision
    where.fp32_precision = "tf32"
    yield
    assert torch.backends.cuda.matmul.fp32_precision == "tf32"
    where.fp32_precision = before
    assert torch.backends.cuda.matmul.fp32_precision == before


@pytest.mark.usefixtures("tf32_allowed")
def test_float32_is_float32_while_a_selection_runs_whatever_the_process_allows() -> None:
    during = set()

    def look(_: Progress) -> None:
        during.update((torch.backends.cuda.matmul.fp32_precision, torch.backends.mkldnn.matmul.fp32_precision))

    select(sketches(), SelectionConfig(budget=10), on_progress=look)
    assert "ieee" in during
    assert during <= {"ieee", "none"}
