"""How large a model may be: a hostile one must not fill the memory or the disk of a worker."""

from __future__ import annotations

from dataclasses import dataclass

MIB = 1 << 20
GIB = 1 << 30


@dataclass(frozen=True, slots=True)
class ModelLimits:
    """The limits; the deployment's settings ``model_max_bytes`` and ``model_json_max_bytes``.

    Attributes:
        max_bytes: Of all weights together.
        json_max_bytes: Of each other file, and of the header of a weight file.
    """

    max_bytes: int = 64 * GIB
    json_max_bytes: int = 64 * MIB
