"""Populations and their rivals timed in turn, so that a machine that slows down slows all of them."""

from __future__ import annotations

import concurrent.futures
import multiprocessing
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from kasmina_env.bench.floor import Machine, Work, measure_machine, work_of
from kasmina_env.bench.rivals import Run, rivals
from kasmina_env.bench.workload import Lively, lively_population
from kasmina_env.envs.vector_env import KasminaVectorEnv
from kasmina_env.lifecycle.arrays import BoolArray, FloatArray
from kasmina_env.population import ENGINES
from kasmina_env.settings.machine import sheltered_children
from kasmina_env.settings.presets import PRESETS

PARTS = ("train", "evaluate", "contribution", "policy", "rest")


@dataclass(frozen=True)
class Measured:
    """Seconds, for every repeat. Of populations they are of one step of all networks, of rivals of one network."""

    preset: str
    device: str  # its name
    engine: str  # that trained the populations
    engine_reason: str  # why it is torch where "auto" would rather have fused; empty elsewhere
    batches_per_step: int
    steps: dict[int, FloatArray]  # by number of networks
    parts: dict[int, dict[str, FloatArray]]  # the same, split into `PARTS`
    rivals: dict[str, FloatArray]
    work: dict[int, Work]
    machine: Machine
    memory: dict[int, float]  # peak bytes of a process that holds the population, on its device; empty if not asked for
    num_workers: int  # over which populations were spread as well
    in_workers: dict[int, FloatArray]  # the same as `steps`, there; empty for one worker

    def per_network(self, size: int, in_workers: bool = False) -> float:
        """Median seconds of a step over the number of networks."""
        return float(np.median((self.in_workers if in_workers else self.steps)[size])) / size


def measure(
    preset: str,
    sizes: Sequence[int],
    repeats: int,
    num_steps: int,
    has_rivals: bool = True,
    has_memory: bool = True,
    num_workers: int = 1,
    is_compiled: bool = False,
) -> Measured:
    """Time a preset.

    Args:
        preset: Registered id.
        sizes: Numbers of networks.
        repeats: Repeats of every measurement, in turn.
        num_steps: Steps of each repeat.
        has_rivals: Time the single environment, its vectors and plain PyTorch as well (needs stable-baselines3).
        has_memory: Measure the peak memory of each size in a process of its own.
        is_compiled: See `rivals`.
        num_workers: Processes over which to spread populations as well, if they are that large.
    """
    PRESETS.get(preset)
    with ExitStack() as stack:
        others = stack.enter_context(rivals(preset, is_compiled)) if has_rivals else {}
        crews = {}
        for size in sizes if num_workers > 1 else ():
            if size >= num_workers:
                crews[size] = _Timed(lively_population(preset, size, num_workers=num_workers), num_steps)
                stack.callback(crews[size].env.close)
        return _measure(preset, sizes, repeats, num_steps, others, has_memory, crews)


def _measure(
    preset: str,
    sizes: Sequence[int],
    repeats: int,
    num_steps: int,
    others: Mapping[str, Run],
    has_memory: bool,
    crews: Mapping[int, _Timed],
) -> Measured:
    timed = {size: _Timed(lively_population(preset, size), num_steps) for size in sizes}
    readable = {size: _Timed(lively_population(preset, size, engine="torch"), num_steps) for size in sizes}
    engine = ENGINES[int(timed[sizes[0]].env.episodes.report.engine[0])]
    if engine != "torch":
        others = {**others, **{f"{size}, torch engine": _per_network(each) for size, each in readable.items()}}
    rows: list[dict[int, dict[str, float]]] = []
    in_workers: dict[int, list[float]] = {size: [] for size in crews}
    seconds: dict[str, list[float]] = {name: [] for name in others}
    for repeat in range(repeats + 1):  # the first warms up
        found = {size: population.run() for size, population in timed.items()}
        for size, crew in crews.items():
            _, taken = crew.step()
            if repeat:
                in_workers[size].append(taken)
        for name, run in others.items():
            taken = run(num_steps)
            if repeat:
                seconds[name].append(taken)
        if repeat:
            rows.append(found)
    episodes = timed[sizes[0]].env.episodes
    device = episodes.devices[0]
    return Measured(
        preset=preset,
        device=torch.cuda.get_device_name(device) if device.type == "cuda" else device.type.upper(),
        batches_per_step=episodes.problem.config.batches_per_step,
        steps={size: np.array([row[size]["step"] for row in rows]) for size in sizes},
        parts={size: {part: np.array([row[size][part] for row in rows]) for part in PARTS} for size in sizes},
        rivals={name: np.array(values) for name, values in seconds.items()},
        engine=engine,
        engine_reason=episodes.engine_reason(),
        work={size: population.work() for size, population in readable.items()},
        machine=measure_machine(device),
        memory={size: peak_memory(preset, size) for size in sizes} if has_memory else {},
        num_workers=max((len(crew.env.episodes.devices) for crew in crews.values()), default=1),
        in_workers={size: np.array(values) for size, values in in_workers.items()},
    )


class _Timed:
    """A lively population; each run starts from the same place."""

    def __init__(self, env: KasminaVectorEnv, num_steps: int) -> None:
        left = env.problem.horizon - int(env.episodes.report.step.max())
        if num_steps >= left:
            raise ValueError(f"`num_steps` must be below {left}, got {num_steps}. The episodes end then.")
        self.env, self.num_steps = env, num_steps
        self.start = env.snapshot()
        self.policy = Lively(env.problem)

    def step(self) -> tuple[float, float]:
        """Median seconds of choosing actions, and of that with the step; wherever the networks are."""
        self.env.restore(self.start)
        rows: list[tuple[float, float]] = []
        for _ in range(self.num_steps):
            begin = time.perf_counter()
            actions = self.policy.act(self.env.action_masks())
            chosen = time.perf_counter()
            self.env.step(actions)
            rows.append((chosen - begin, time.perf_counter() - begin))
        policy, step = np.median(np.array(rows), axis=0).tolist()
        return policy, step

    def run(self) -> dict[str, float]:
        """Median seconds of a step and of its parts; the networks must be in one place."""
        policy, step = self.step()
        train, evaluate, everything = (float(np.median(times)) for times in self._networks())
        contribution = max(everything - evaluate, 0.0)
        rest = max(step - policy - train - everything, 0.0)
        values = (train, evaluate, contribution, policy, rest)
        return {"step": step, **dict(zip(PARTS, values, strict=True))}

    def _networks(self) -> NDArray[np.float64]:
        """Seconds of training, of evaluation, and of that with every seed switched off in turn ``[3, steps]``."""
        core, rows = self.env.episodes.local, []
        config, population, alpha = core.problem.config, core.population, core.state().lifecycle.alpha.value
        data = core.data.watched, core.data.scored
        for _ in range(self.num_steps):
            begin = time.perf_counter()
            x, y = population.draw_minibatches(
                core.data.splits["train"], config.batches_per_step, config.batch_size, config.augment
            )
            population.train(x, y, alpha)[0].tolist()
            trained = time.perf_counter()
            population.evaluate_together(data, alpha, (None, None))[-1][0].tolist()
            evaluated = time.perf_counter()
            population.evaluate_together(data, alpha, (_each_off(alpha), None))[-1][0].tolist()
            rows.append((trained - begin, evaluated - trained, time.perf_counter() - evaluated))
        return np.array(rows).T

    def work(self) -> Work:
        """What one step of it does, kernel by kernel: what a recording replays cannot be counted."""
        self.env.restore(self.start)
        recordings = self.env.episodes.local.population.setting.recordings
        recordings.is_on = False
        try:
            return work_of(partial(self.env.step, self.policy.act(self.env.action_masks())))
        finally:
            recordings.is_on = True


def _per_network(timed: _Timed) -> Run:
    return lambda num_steps: timed.step()[1] / timed.env.num_envs


def _each_off(alpha: FloatArray) -> BoolArray:
    """All seeds on, then those of each slot off: ``[1 + S, N, S]``."""
    off = np.zeros((1 + alpha.shape[1], *alpha.shape), dtype=bool)
    for slot in range(alpha.shape[1]):
        off[1 + slot, :, slot] = True
    return off


def peak_memory(preset: str, num_networks: int) -> float:
    """Bytes at most of a process that fills a population and steps it twice: resident, or reserved on the GPU."""
    context = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(1, mp_context=context) as pool:
        with sheltered_children():
            found = pool.submit(_live_and_measure, preset, num_networks)
        return found.result()


def _live_and_measure(preset: str, num_networks: int) -> float:
    env = lively_population(preset, num_networks)
    for _ in range(2):
        env.step(np.zeros(num_networks, dtype=np.int64))
    device = env.episodes.devices[0]
    return float(torch.cuda.max_memory_reserved(device)) if device.type == "cuda" else peak_of_this_process()


def peak_of_this_process() -> float:
    """Bytes. Linux lets a child's `ru_maxrss` begin at that of its parent, so its status file is asked first."""
    status = Path("/proc/self/status")
    if status.exists():
        (line,) = [line for line in status.read_text(encoding="utf-8").splitlines() if line.startswith("VmHWM")]
        return float(line.split()[1]) * 1024
    import resource

    unit = 1 if sys.platform == "darwin" else 1024
    return float(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit)
