"""The way of rows from the host to a GPU."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor


class Staging:
    """Two buffers of page-locked host memory that rows pass through in turn.

    A copy out of pageable memory, such as a mapped file, makes the host wait for it; out of page-locked memory it runs
    beside the host, which fills the other buffer meanwhile. Rows travel in the precision that they are kept in and are
    widened where they arrive: half precision is half the way.
    """

    def __init__(self, data: Tensor, device: torch.device, capacity: int) -> None:
        """Start without buffers: they come with the first rows.

        Args:
            data: The rows, shape (n, p), on the host.
            device: Where they go. The buffers are page-locked for CUDA alone: there is no such memory without it.
            capacity: Bytes of a buffer at most, but one row at least.
        """
        self._data = data
        self._device = device
        self._locked = device.type == "cuda"
        self._height = min(len(data), max(1, capacity // (data.shape[1] * data.dtype.itemsize)))
        self._buffers: list[Tensor] = []
        self._sent: list[torch.cuda.Event | None] = [None, None]
        self._turn = 0

    def send(self, rows: slice) -> Tensor:
        """Copy rows that lie side by side to the device, without waiting for the last of them to arrive.

        Args:
            rows: Row numbers, with a start and a stop.

        Returns:
            Shape (stop - start, p), as kept; work put after it on the device's current stream finds it complete.
        """
        data = self._data[rows]
        return self._passed(len(data), lambda part, buffer: buffer.copy_(data[part]))

    def gather(self, rows: Tensor) -> Tensor:
        """Copy rows to the device by their numbers; as `send`.

        Args:
            rows: Shape (m,), int64, on the host.
        """
        return self._passed(len(rows), lambda part, buffer: torch.index_select(self._data, 0, rows[part], out=buffer))

    def _passed(self, count: int, fill: Callable[[slice, Tensor], object]) -> Tensor:
        """Rows that `fill` writes, part by part, into the buffer that is free."""
        arrived = torch.empty(count, self._data.shape[1], dtype=self._data.dtype, device=self._device)
        for start in range(0, count, self._height):
            part = slice(start, min(start + self._height, count))
            buffer = self._free()[: part.stop - start]
            fill(part, buffer)
            arrived[part].copy_(buffer, non_blocking=self._locked)
            if self._locked:
                self._sent[self._turn] = torch.cuda.current_stream(self._device).record_event()
        return arrived

    def _free(self) -> Tensor:
        """The buffer used longer ago, once what it held has left."""
        if not self._buffers:
            shape = (self._height, self._data.shape[1])
            self._buffers = [torch.empty(shape, dtype=self._data.dtype, pin_memory=self._locked) for _ in self._sent]
        self._turn = 1 - self._turn
        sent = self._sent[self._turn]
        if sent is not None:
            sent.synchronize()
        return self._buffers[self._turn]
