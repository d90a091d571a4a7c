"""What a population is compared with: the single environment, alone and in vectors of it, and plain PyTorch."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import torch

from kasmina_env.bench.plain import PlainTraining
from kasmina_env.bench.vmapped import VmappedTraining
from kasmina_env.bench.workload import LivelyEnv
from kasmina_env.settings.machine import num_cores, sheltered_children

if TYPE_CHECKING:
    from stable_baselines3.common.vec_env import VecEnv

NUM_DUMMY = 8
NUM_VMAPPED = 64
Run = Callable[[int], float]  # so many steps to seconds per step of one network


def _make(preset: str, rng_seed: int) -> LivelyEnv:
    torch.set_num_threads(1)  # processes share the cores
    return LivelyEnv(preset, rng_seed)


def _single(env: LivelyEnv, num_steps: int) -> float:
    env.rewind()
    start = time.perf_counter()
    for _ in range(num_steps):
        env.step(env.choose())
    return (time.perf_counter() - start) / num_steps


def _plain(training: PlainTraining, num_steps: int) -> float:
    start = time.perf_counter()
    for _ in range(num_steps):
        training.step()
    return (time.perf_counter() - start) / num_steps


def _vmapped(training: VmappedTraining, num_steps: int) -> float:
    start = time.perf_counter()
    for _ in range(num_steps):
        training.step()
    return (time.perf_counter() - start) / (num_steps * training.num_networks)


def _vector(vector: VecEnv, num_steps: int) -> float:
    vector.env_method("rewind")
    start = time.perf_counter()
    for _ in range(num_steps):
        vector.step(np.array(vector.env_method("choose")))
    return (time.perf_counter() - start) / (num_steps * vector.num_envs)


@contextmanager
def rivals(preset: str, is_compiled: bool = False) -> Iterator[Mapping[str, Run]]:
    """Everything a population is compared with, by name, ready to run.

    Args:
        preset: Registered id.
        is_compiled: Whether stacked networks are also trained in a step made by `torch.compile`, which takes minutes
            to compile and, on a CPU, a C++ compiler.

    Raises:
        ImportError: If stable-baselines3 is missing.
    """
    try:
        from stable_baselines3.common.vec_env import DummyVecEnv, SubprocVecEnv
    except ImportError as error:
        raise ImportError("`stable-baselines3` must be installed, got none. pip install 'kasmina-env[sb3]'.") from error
    env = LivelyEnv(preset, 0)
    env.fill()
    dummy = DummyVecEnv([partial(LivelyEnv, preset, i) for i in range(NUM_DUMMY)])
    with sheltered_children():
        workers = SubprocVecEnv([partial(_make, preset, i) for i in range(num_cores())])
    try:
        for vector in (dummy, workers):
            vector.env_method("fill")
        name = f"torch.func.vmap({NUM_VMAPPED})"
        vmapped = {name: partial(_vmapped, VmappedTraining(env, NUM_VMAPPED))}
        if is_compiled:
            vmapped[f"{name}, compiled"] = partial(_vmapped, VmappedTraining(env, NUM_VMAPPED, is_compiled=True))
        yield {
            "plain PyTorch": partial(_plain, PlainTraining(env)),
            **vmapped,
            "single environment": partial(_single, env),
            f"DummyVecEnv({NUM_DUMMY})": partial(_vector, dummy),
            f"SubprocVecEnv({num_cores()})": partial(_vector, workers),
        }
    finally:
        workers.close()
