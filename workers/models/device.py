"""From the setting `auto`, `cpu`, `cuda` or `cuda:1` to a torch device."""

from __future__ import annotations

import torch

from workers.models.errors import ModelError


def resolve_device(setting: str) -> torch.device:
    """The device to run models on; `auto` takes CUDA where there is one.

    Raises:
        ModelError: The device is not there.
    """
    cuda = torch.cuda.is_available()
    if setting == "auto":
        return torch.device("cuda" if cuda else "cpu")
    device = torch.device(setting)
    if device.type == "cuda" and not cuda:
        raise ModelError(f"SPICE_DEVICE={setting}: this machine has no CUDA device; use auto or cpu")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise ModelError(f"SPICE_DEVICE={setting}: this machine has {torch.cuda.device_count()} CUDA devices")
    return device


def beside(device: torch.device) -> tuple[torch.device, ...]:
    """The machine's further devices of the same kind."""
    if device.type != "cuda":
        return ()
    first = device.index or 0
    return tuple(torch.device("cuda", number) for number in range(torch.cuda.device_count()) if number != first)
