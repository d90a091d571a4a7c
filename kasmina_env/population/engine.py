"""Which engine trains a population: `torch`, or `fused`, which means the same and takes less time on a CPU."""

from __future__ import annotations

import os
from collections.abc import Sequence
from importlib.util import find_spec
from typing import Protocol

import torch
from torch import Tensor

from kasmina_env.lifecycle.arrays import BoolArray, FloatArray
from kasmina_env.population import evaluate as evaluation
from kasmina_env.population import train as training
from kasmina_env.population.state import Networks, Setting
from kasmina_env.population.train import GradientHealth
from kasmina_env.settings.config import Operator
from kasmina_env.settings.registry import unknown_name_message
from kasmina_env.tasks import Split

ENGINES = ("auto", "torch", "fused")
ENGINE = "KASMINA_ENGINE"  # environment variable with the engine where none is named


class Engine(Protocol):
    """Trains and evaluates networks."""

    @property
    def name(self) -> str: ...

    def why_not(self, slot: int, blueprint: str, operator: Operator, in_training: bool) -> str:
        """Why it cannot grow a seed, in one sentence; empty if it can."""
        ...

    def train(
        self,
        networks: Networks,
        x: Sequence[Tensor],
        y: Sequence[Tensor],
        alpha: FloatArray,
        host_rate: FloatArray,
        seed_rate: FloatArray,
    ) -> tuple[Tensor, GradientHealth]:
        """See `kasmina_env.population.train.train`."""
        ...

    def evaluate(
        self, networks: Networks, data: Sequence[Split], alpha: FloatArray, off: Sequence[BoolArray]
    ) -> list[tuple[Tensor, Tensor]]:
        """See `kasmina_env.population.evaluate.evaluate`."""
        ...


class TorchEngine:
    """The readable engine, for any host, blueprint, precision and device."""

    name = "torch"

    def why_not(self, slot: int, blueprint: str, operator: Operator, in_training: bool) -> str:
        return ""

    train = staticmethod(training.train)
    evaluate = staticmethod(evaluation.evaluate)


def choose_engine(name: str | None, setting: Setting) -> tuple[Engine, str]:
    """The engine of a population.

    Args:
        name: One of `ENGINES`; "auto" is "fused" wherever it can be. By default what the environment variable
            KASMINA_ENGINE says, else "auto".
        setting: Setting of the networks.

    Returns:
        The engine, and why it is "torch" where "auto" would rather have "fused", in one sentence; empty elsewhere.

    Raises:
        ValueError: If "fused" is asked for where it cannot be.
    """
    source, name = _asked(name)
    if name == "torch":
        return TorchEngine(), ""
    reason = why_not_here(setting.device, setting.dtype)
    if not reason:
        from kasmina_env.population.fused import FusedEngine, UnsupportedError

        try:
            return FusedEngine(setting), ""
        except UnsupportedError as error:
            reason = str(error)
    if name == "fused":
        raise ValueError(f"`{source}` must be 'torch' or 'auto' here, got 'fused': {reason}.")
    return TorchEngine(), reason


def _asked(name: str | None) -> tuple[str, str]:
    """The argument or environment variable that says which engine, and what it says; see `choose_engine`."""
    source, asked = ("engine", name) if name else (ENGINE, os.environ.get(ENGINE) or "auto")
    if asked not in ENGINES:
        raise ValueError(unknown_name_message(source, asked, ENGINES))
    return source, asked


def check_engine(name: str | None, device: torch.device, dtype: torch.dtype) -> None:
    """Raise a ``ValueError`` if an engine is asked for that trains no networks on this device, or of this dtype."""
    source, asked = _asked(name)
    if asked == "fused" and (reason := why_not_here(device, dtype)):
        raise ValueError(f"`{source}` must be 'torch' or 'auto' here, got 'fused': {reason}.")


def why_not_here(device: torch.device, dtype: torch.dtype) -> str:
    """Why the fused engine trains no networks on a device, or of a dtype, in one sentence; empty if it does."""
    if device.type != "cpu":
        return f"the fused engine is for CPUs, and the networks are on {device}"
    if dtype != torch.float32:
        return f"the fused engine computes in float32, and the networks in {str(dtype).removeprefix('torch.')}"
    if find_spec("numba") is None:
        return "the fused engine needs numba: pip install kasmina-env[fast]"
    return ""
