"""From the setting `auto`, `cpu`, `cuda` or `cuda:1` to a torch device."""

from __future__ import annotations

import platform
from functools import cache
from pathlib import Path

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


@cache
def device_name(device: torch.device) -> str:
    """What computes: the name of the GPU, or of the processor with the number of threads that are used of it."""
    if device.type == "cuda":
        return f"cuda: {torch.cuda.get_device_name(device)}"
    threads = torch.get_num_threads()
    return f"cpu: {_processor()}, {threads} thread{'' if threads == 1 else 's'}"


def _processor() -> str:
    """The processor's name; Linux tells it in a file, where `platform` does not look."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(named, "") or platform.processor() or platform.machine()
