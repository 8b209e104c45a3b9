"""What is measured of a job's stages, and which measurements speak of the same work.

The time of a stage is compared with that of the same stage for the same model on the same device, and grows with the
stage's own size: tokens for reading and gradients, numbers that are gone through for selecting and publishing.
"""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING

from app.core.db.tables import Stage
from app.core.lifecycle.measurements import Kind
from workers.models.device import device_name

if TYPE_CHECKING:
    from collections.abc import Mapping

    from app.core.contracts.job_request import JobRequest
    from app.core.contracts.selection_request import SelectionSpec
    from workers.gradients.config import GradientConfig
    from workers.runtime.context import WorkerContext

STARTING = "starting"
"""From the taking of a shard to its first batch: samples, model and engine, which are mostly in memory already."""


def of_reading(request: JobRequest, revision: str, *, found: bool) -> Kind:
    """Reading a dataset, or finding it read before."""
    variant = {"found": found, "format": request.dataset.format, "pairs": request.dataset.preference == "dpo"}
    return Kind(str(Stage.READING), revision, "", _text(variant))


def of_gradients(
    context: WorkerContext, request: JobRequest, config: GradientConfig, revision: str, *, stage: str = Stage.GRADIENTS
) -> Kind:
    """The sketches of a shard, or what comes before them."""
    variant = {
        "dtype": request.model.dtype,
        "devices": request.model.devices,
        "target": config.target,
        "rank": config.rank,
        "layers": config.layers,
        "adapter": config.adapter is not None or config.warmup_steps > 0,
        "preconditioner": config.preconditioner,
        "sketch_dim": config.sketch_dim,
        "prompt_effect": config.prompt_effect,
        "pairs": request.dataset.preference == "dpo",
        "token_budget": context.settings.token_budget,
    }
    return Kind(str(stage), revision, device_name(context.device), _text(variant))


def of_selecting(context: WorkerContext, spec: SelectionSpec, sketch_dim: int) -> Kind:
    """A selection with its baselines."""
    given = spec.model_dump(mode="json", exclude={"budget", "seed", "alpha", "filters"})
    return Kind(str(Stage.SELECTING), "", device_name(context.device), _text({**given, "sketch_dim": sketch_dim}))


def of_publishing(sketch_dim: int) -> Kind:
    """Statistics, and the files of rows."""
    return Kind(str(Stage.PUBLISHING), "", "", _text({"sketch_dim": sketch_dim}))


def selecting_size(rows: int, picks: int, sketch_dim: int) -> float:
    """What the time of a selection grows with.

    It lies between n p, which each method goes through, and n k p, which the plain greedy does: lazy evaluation saves
    most of the difference.
    """
    return float(rows) * sketch_dim * math.sqrt(max(picks, 1))


def publishing_size(rows: int, picks: int, sketch_dim: int) -> float:
    """Statistics go through all sketches, and the files of rows through all rows."""
    return float(rows) * (sketch_dim + 1) + picks


def _text(variant: Mapping[str, object]) -> str:
    return json.dumps(variant, sort_keys=True, default=list)
