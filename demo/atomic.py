"""Files that appear whole or not at all."""

from __future__ import annotations

import shutil
from contextlib import contextmanager
from pathlib import Path
from tempfile import mkdtemp
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary path beside `path`; what was written there takes its name when the block ends without error."""
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(mkdtemp(prefix=f".{path.name}-", dir=path.parent))
    try:
        made = scratch / path.name
        yield made
        made.replace(path)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
