"""Between NumPy's world and PyTorch's: where and in which modes networks train, and the way figures come back."""

from __future__ import annotations

import os
from collections.abc import Sequence

import numpy as np
import torch

from kasmina_env.lifecycle.arrays import FloatArray
from kasmina_env.networks.modes import own_modes as own_modes
from kasmina_env.settings.machine import DEVICE, num_cores


def find_device(name: str | None = None, is_here: bool = True) -> torch.device:
    """The device of this name; without one that of the environment variable KASMINA_DEVICE, else the CPU.

    Args:
        name: Name as PyTorch knows it.
        is_here: Whether it is a device of this machine, which is tried.

    Raises:
        ValueError: If PyTorch cannot use it here.
    """
    chosen, source = (os.environ.get(DEVICE) or "cpu", DEVICE) if name is None else (name, "device")
    try:
        if not is_here:
            return torch.device(chosen)
        found = torch.ones(1, device=chosen)
        found.cpu()  # which a device without numbers, "meta", cannot do
        return found.device
    except (RuntimeError, AssertionError, ImportError, TypeError) as error:
        reason = str(error).splitlines()[0].rstrip(".")
        raise ValueError(
            f"`{source}` must be a device that PyTorch can use here, got {chosen!r}: {reason}. Use 'cpu', or name "
            "another one."
        ) from error


def num_processes() -> int:
    """Over how many processes to spread networks where they train by default: one for each core, and one for a GPU."""
    return num_cores() if find_device().type == "cpu" else 1


def to_numpy(tensors: Sequence[torch.Tensor]) -> list[FloatArray]:
    """Bring figures from the device in one transfer."""
    flat = torch.cat([t.detach().reshape(-1) for t in tensors]).cpu().double().numpy()
    parts = np.split(flat, np.cumsum([t.numel() for t in tensors])[:-1])
    return [part.reshape(t.shape) for part, t in zip(parts, tensors, strict=True)]
