"""Global random generators, from which stable-baselines3 draws: their states as a value, kept and put back."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch


def random_states() -> dict[str, Any]:
    """States of the generators of Python, NumPy and PyTorch (CPU)."""
    return {
        "python": random.getstate(),
        "numpy": np.random.get_state(legacy=False),  # noqa: NPY002 - the library draws from this one
        "torch": torch.get_rng_state(),
    }


def set_random_states(states: Mapping[str, Any]) -> None:
    """Put the generators into states that `random_states` returned."""
    random.setstate(states["python"])
    np.random.set_state(states["numpy"])  # noqa: NPY002 - see above
    torch.set_rng_state(states["torch"])


@contextmanager
def untouched_random_states() -> Iterator[None]:
    """Leave the generators as they were, whatever is drawn inside."""
    before = random_states()
    try:
        yield
    finally:
        set_random_states(before)
