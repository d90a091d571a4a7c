"""Between NumPy's world and PyTorch's: the modes in which networks train, and the way figures come back."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch

from kasmina_env.alpha import FloatArray


def to_numpy(tensors: Sequence[torch.Tensor]) -> list[FloatArray]:
    """Bring figures from the device in one transfer."""
    flat = torch.cat([t.detach().reshape(-1) for t in tensors]).double().cpu().numpy()
    parts = np.split(flat, np.cumsum([t.numel() for t in tensors])[:-1])
    return [part.reshape(t.shape) for part, t in zip(parts, tensors, strict=True)]


@contextmanager
def own_modes(device: torch.device) -> Iterator[None]:
    """Whatever modes the caller is in, networks train with gradients and in their own precision."""
    with torch.inference_mode(False), torch.enable_grad(), torch.autocast(device.type, enabled=False):
        yield
