"""How the cost of a step grows with what there is to do: one setting changed at a time."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from kasmina_env.bench.workload import Lively, is_lively
from kasmina_env.envs.vector_env import KasminaVectorEnv
from kasmina_env.episode.problem import make_problem

# Which host setting makes slots, and its values.
SLOTS: Mapping[str, tuple[str, tuple[Any, ...]]] = {
    "cnn": ("kernels", ((1,), (1, 1), (1, 1, 1))),
    "mlp": ("depth", (1, 2, 3)),
}


@dataclass(frozen=True)
class Case:
    """A population that differs from the preset in one thing."""

    what: str
    value: object
    num_networks: int
    settings: Mapping[str, Any]
    num_live: int | None = None  # slots that are filled; None: all


@dataclass(frozen=True)
class Cost:
    """Median seconds of a step."""

    what: str
    value: object
    seconds: float


def cases(preset: str, num_networks: int) -> list[Case]:
    """Everything a step's cost may grow with."""
    problem = make_problem(preset)
    config = problem.config
    name, values = SLOTS.get(config.host, ("", ()))
    menus = [config.blueprints[-count:] for count in range(1, len(config.blueprints) + 1)]
    return [
        *(Case("networks", n, n, {}) for n in (num_networks // 4, num_networks // 2, num_networks) if n),
        *(Case("live seeds of each network", n, num_networks, {}, num_live=n) for n in range(problem.num_slots + 1)),
        *(Case("slots, all filled", i + 1, num_networks, {"host_settings": {name: v}}) for i, v in enumerate(values)),
        *(Case("blueprints in use", len(menu), num_networks, {"blueprints": menu}) for menu in menus),
        *(Case("batch", size, num_networks, {"batch_size": size}) for size in (16, 32, 64)),
    ]


def measure_growth(preset: str, num_networks: int, repeats: int) -> list[Cost]:
    """Time all cases in turn."""
    chosen = cases(preset, num_networks)
    envs = [_fill(preset, case) for case in chosen]
    starts = [env.snapshot() for env in envs]
    seconds = np.array([[_step(env, start) for env, start in zip(envs, starts, strict=True)] for _ in range(repeats)])
    medians = np.median(seconds, axis=0).tolist()
    return [Cost(case.what, case.value, taken) for case, taken in zip(chosen, medians, strict=True)]


def _fill(preset: str, case: Case) -> KasminaVectorEnv:
    env = KasminaVectorEnv(case.num_networks, preset, **case.settings)
    policy, actions = Lively(env.problem), env.problem.actions
    env.reset(seed=0)
    limit = env.problem.num_slots if case.num_live is None else case.num_live
    allowed = (actions.op == 0) | (actions.slot < limit)
    for _ in range(env.problem.horizon - 2):
        if is_lively(env.episodes):
            break
        env.step(policy.act(env.action_masks() & allowed))
    return env


def _step(env: KasminaVectorEnv, start: Any) -> float:
    env.restore(start)
    begin = time.perf_counter()
    env.step(np.zeros(env.num_envs, dtype=np.int64))
    return time.perf_counter() - begin
