"""Rows on their way to a GPU. No GPU is needed: the buffers and their turns run with the processor as the device."""

import numpy as np
import pytest
import torch

from workers.selection.sketches import Sketches
from workers.selection.staging import Staging

PROCESSOR = torch.device("cpu")


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("capacity", [1, 300, 10**6])
def test_rows_arrive_as_they_are_kept_however_small_the_buffers(dtype: torch.dtype, capacity: int) -> None:
    data = torch.randn(41, 6, generator=torch.Generator().manual_seed(0)).to(dtype)
    staging = Staging(data, PROCESSOR, capacity)
    arrived = [staging.send(slice(start, min(start + 17, 41))) for start in range(0, 41, 17)]
    gathered = staging.gather(torch.tensor([40, 3, 3, 0]))
    empty = staging.gather(torch.empty(0, dtype=torch.int64))
    assert torch.cat(arrived).equal(data)  # none was overwritten by those that came after it
    assert gathered.equal(data[[40, 3, 3, 0]])
    assert empty.shape == (0, 6)
    assert gathered.dtype == dtype


def test_sketches_are_the_same_through_the_buffers() -> None:
    data = np.random.default_rng(0).standard_normal((50, 8)).astype(np.float16)
    direct, staged = Sketches(data), Sketches(data)
    staged._staging = Staging(torch.from_numpy(data), PROCESSOR, 100)
    rows, scale = torch.tensor([7, 1, 49]), torch.linspace(1, 2, 50, dtype=torch.float64)
    for one, other in ((direct, staged), (direct.scaled(scale), staged.scaled(scale))):
        for dtype in (torch.float32, torch.float64):
            assert one.gather(rows, dtype).equal(other.gather(rows, dtype))
            for (where, tile), (there, copy) in zip(one.tiles(dtype, 16), other.tiles(dtype, 16), strict=True):
                assert where == there
                assert tile.equal(copy)
        assert (
            one.subset(rows)
            .gather(torch.arange(3), torch.float32)
            .equal(other.subset(rows).gather(torch.arange(3), torch.float32))
        )
