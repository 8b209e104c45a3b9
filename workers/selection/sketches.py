"""The rows of a sketch matrix: read in tiles or by number, never copied whole."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from workers.selection.config import ConfigError
from workers.selection.staging import Staging

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray
    from torch import Tensor

    from workers.selection.progress import Watch

#: A tile is what is read, moved and upcast at once; 64 MiB keeps a GPU busy and a laptop unharmed.
TILE_BYTES = 64 * 2**20

#: numpy types that torch can read in place; ml_dtypes.bfloat16 is a fourth, known by its name.
_NUMPY_FLOATS = (np.float16, np.float32, np.float64)

#: Dimensions of a matrix.
_MATRIX = 2

#: Rows named in an error message before it says how many more there are.
_NAMED_ROWS = 20


class SketchShapeError(ValueError):
    """The sketches are not a float matrix with at least one row and one column."""


class InvalidRowsError(ValueError):
    """Some rows are not finite.

    Attributes:
        rows: Their numbers, shape (m,), int64, ascending.
        reasons: For each row, why: "nan", "inf" or "overflow" (finite, but its squared norm is not).
    """

    def __init__(self, rows: NDArray[np.int64], reasons: Sequence[str]) -> None:
        named = ", ".join(
            f"{row} ({reason})" for row, reason in zip(rows[:_NAMED_ROWS], reasons[:_NAMED_ROWS], strict=True)
        )
        more = len(reasons) - _NAMED_ROWS
        super().__init__(
            f"{len(reasons)} rows are not finite: {named}{f' and {more} more' if more > 0 else ''}: leave them out"
        )
        self.rows, self.reasons = rows, reasons


class Sketches:
    """A matrix of sketches, shape (n, p), that may be half precision, memory-mapped and on another device.

    Attributes:
        data: The matrix as it came.
        n: Number of rows.
        p: Length of a row.
        device: Where computations happen.
        dtype: Precision of bulk computations: float64 for float64 input, float32 for everything narrower.
    """

    def __init__(self, data: Any, device: str | None = None) -> None:  # noqa: ANN401 - numpy or torch
        """Wrap a matrix without copying it.

        Args:
            data: numpy array (memory-mapped or not; float16, float32, float64, ml_dtypes.bfloat16) or torch
                tensor (any float type), shape (n, p).
            device: Torch device to compute on; None for the tensor's own (cpu for numpy).

        Raises:
            SketchShapeError: If `data` is not a float matrix with n >= 1 and p >= 1.
            ConfigError: If the device is a CUDA device and there is none.
        """
        self.data = _as_tensor(data)
        shape = tuple(self.data.shape)
        if len(shape) != _MATRIX or 0 in shape or not self.data.is_floating_point():
            raise SketchShapeError(f"sketches must be a float matrix (n, p); got {self.data.dtype} of shape {shape}")
        self.n, self.p = self.data.shape
        self.device = torch.device(device) if device is not None else self.data.device
        if self.device.type == "cuda" and not torch.cuda.is_available():
            raise ConfigError(f"device is {device!r}, but torch finds no CUDA device here; 'cpu' or None needs none")
        self.dtype = torch.float64 if self.data.dtype == torch.float64 else torch.float32
        self._scale: Tensor | None = None
        far = self.device.type == "cuda" and self.data.device.type == "cpu"
        self._staging = Staging(self.data, self.device, TILE_BYTES) if far else None

    def scaled(self, scale: Tensor) -> Sketches:
        """The same rows, row i multiplied by `scale[i]` wherever it is read.

        Args:
            scale: Factors, shape (n,), float64, on the compute device.
        """
        other = object.__new__(Sketches)
        other.data, other._staging = self.data, self._staging
        other._scale = scale if self._scale is None else self._scale * scale
        other.n, other.p, other.device, other.dtype = self.n, self.p, self.device, self.dtype
        return other

    def gather(self, rows: Tensor, dtype: torch.dtype) -> Tensor:
        """Copy some rows to the compute device.

        Args:
            rows: Row numbers, shape (m,), int64.
            dtype: Precision of the copy.

        Returns:
            Matrix of shape (m, p).
        """
        found = self._fetch(rows).to(dtype)
        return found if self._scale is None else found * self._scale[rows].to(dtype).unsqueeze(1)

    def row(self, number: int) -> NDArray[np.float64]:
        """One row, shape (p,), float64, on the host.

        Args:
            number: Its number.
        """
        found: NDArray[np.float64] = self.gather(torch.tensor([number]), torch.float64)[0].cpu().numpy()
        return found

    def subset(self, rows: Tensor) -> Sketches:
        """A copy of some rows in the precision of the input, for pools that are cut out (windows, parts).

        Args:
            rows: Row numbers, shape (m,), int64.
        """
        if self._scale is not None:
            return Sketches(self.gather(rows, self.dtype))
        return Sketches(self._fetch(rows))

    def tiles(self, dtype: torch.dtype | None = None, rows: int | None = None) -> Iterator[tuple[slice, Tensor]]:
        """All rows in order, a tile at a time.

        Args:
            dtype: Precision of the tiles; the bulk precision by default.
            rows: Rows of a tile; by default as many as make `TILE_BYTES`.

        Yields:
            The row numbers as a slice, and the tile, shape (at most t, p), on the compute device.
        """
        dtype = dtype or self.dtype
        height = max(1, TILE_BYTES // (self.p * dtype.itemsize)) if rows is None else rows
        for start in range(0, self.n, height):
            where = slice(start, min(start + height, self.n))
            kept = self.data[where].to(self.device) if self._staging is None else self._staging.send(where)
            tile = kept.to(dtype)
            yield where, tile if self._scale is None else tile * self._scale[where].to(dtype).unsqueeze(1)

    def products(self, directions: Tensor) -> Tensor:
        """Inner products of all rows with a few directions.

        Args:
            directions: Shape (m, p), bulk precision.

        Returns:
            Shape (n, m), bulk precision.
        """
        found = torch.empty(self.n, directions.shape[0], dtype=self.dtype, device=self.device)
        for where, tile in self.tiles():
            found[where] = tile @ directions.T
        return found

    def squared_norms(self, watch: Watch) -> Tensor:
        """Squared norm of each row, shape (n,), float64, NaN or inf where a row is not finite."""
        found = torch.empty(self.n, dtype=torch.float64, device=self.device)
        for where, tile in self.tiles():
            found[where] = torch.linalg.vector_norm(tile, dim=1, dtype=torch.float64).square_()
            watch.step("scanning", where.stop, self.n)
        return found

    def check_finite(self, squared_norms: Tensor) -> None:
        """Refuse rows whose squared norm is not finite.

        Args:
            squared_norms: Shape (n,), from `squared_norms`.

        Raises:
            InvalidRowsError: There are some; it says which, and why.
        """
        rows = torch.nonzero(~torch.isfinite(squared_norms)).flatten()
        reasons = []
        for row in rows.tolist():
            values = self.data[row]
            reasons.append("nan" if values.isnan().any() else "inf" if values.isinf().any() else "overflow")
        if reasons:
            raise InvalidRowsError(rows.cpu().numpy().astype(np.int64), reasons)

    def _fetch(self, rows: Tensor) -> Tensor:
        """A copy of some rows on the compute device, in the precision of the input."""
        at = rows.to(self.data.device)
        return self.data.index_select(0, at).to(self.device) if self._staging is None else self._staging.gather(at)


def _as_tensor(data: Any) -> Tensor:  # noqa: ANN401 - numpy or torch
    if isinstance(data, torch.Tensor):
        return data.detach()
    array = np.asarray(data)
    with warnings.catch_warnings():
        # A read-only memory map is exactly what is wanted: nothing here writes to the input.
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
        if array.dtype.name == "bfloat16":
            return torch.from_numpy(array.view(np.int16)).view(torch.bfloat16)
        if array.dtype.newbyteorder("=") not in _NUMPY_FLOATS:
            raise SketchShapeError(f"sketches must be float16, bfloat16, float32 or float64; got {array.dtype}")
        return torch.from_numpy(np.asarray(array, dtype=array.dtype.newbyteorder("=")))
