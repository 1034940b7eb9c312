"""Where computations run; language models and toys choose alike."""

from __future__ import annotations

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
