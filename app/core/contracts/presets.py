"""Requests by name: what a preset fills in of a request; docs/paper.md says where each of its numbers comes from."""

from __future__ import annotations

from typing import Any, Final, Literal

Preset = Literal["paper-qwen2-7b", "paper-llama2-7b", "authors-code"]

_PAPER: Final[dict[str, Any]] = {
    "gradients": {"target": "lora", "rank": 16, "prompt_effect": False},
    "selection": {
        "method": "spice",
        "fisher": "exact",
        "conflict_penalty": 0.1,
        "normalize": "none",
        "early_stop_ratio": None,
        "filters": {},
    },
    "schedule": {
        "windows": 120,
        "keep": 12,
        "train_every": 10,
        "epochs": 1,
        "learning_rate": 2e-4,
        "weight_decay": 0.01,
        "warmup_ratio": 0.03,
        "seed": 0,
    },
}
_AUTHORS: Final[dict[str, Any]] = {
    "gradients": {
        "target": "lora",
        "rank": 16,
        "sketch_dim": 8192,
        "loss_over": "row",
        "loss_normalization": "mean",
        "prompt_effect": False,
    },
    "selection": {**_PAPER["selection"], "fisher": "reference_top_k"},
    "schedule": {**_PAPER["schedule"], "windows": 128, "keep": 64},
}
PRESETS: Final[dict[str, dict[str, Any]]] = {
    "paper-qwen2-7b": _PAPER,
    "paper-llama2-7b": _PAPER,
    "authors-code": _AUTHORS,
}


def filled(given: Any) -> Any:  # noqa: ANN401 - whatever was sent
    """A request's body with what its preset says of the fields that it leaves out.

    What the body says itself, null too, stays. One that names no preset, or none that there is, is what it was.
    """
    preset = PRESETS.get(str(given.get("preset"))) if isinstance(given, dict) else None
    if preset is None:
        return given
    made = dict(given)
    for part, fields in preset.items():
        asked = given.get(part, {})
        if isinstance(asked, dict):
            made[part] = {**fields, **asked}
    return made
