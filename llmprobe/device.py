"""Where computations run; language models and toys choose alike."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from llmprobe.errors import ConfigError


def pick_device(device: str = "auto") -> str:
    """``auto`` is CUDA if there is one, else Apple's MPS, else the CPU.

    Raises
    ------
    ConfigError
        The device named is not here.
    """
    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise ConfigError(
            f"device {device!r} is not available or not usable here", expected="auto, cpu, cuda or mps"
        ) from error
    return device


def pick_double(device: str = "auto") -> torch.device:
    """A device that knows float64: the CPU in place of MPS, which does not."""
    place = torch.device(pick_device(device))
    return torch.device("cpu") if place.type == "mps" else place


@contextmanager
def torch_threads(count: int) -> Iterator[None]:
    """Products on a CPU take this many cores inside the block."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
