"""Open-loop search for the best fixed schedule: many plans at once, as rows of one population."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from agents.policy import FloatArray, IntArray, Names, Progress, make_env, names_of, play
from agents.schedule import Fixed, Plan, Planned, actions_of
from kasmina_env import KasminaVectorEnv
from kasmina_env.config import EnvConfig
from kasmina_env.presets import PRESETS

# Successive halving: plans kept, neighbours added to each of the best four, and seeds each is then measured on.
ROUNDS = ((96, 0, 4), (24, 12, 8), (8, 6, 16), (4, 0, 64))
NUM_ENVS = 64
MAX_SEED = 500_000  # below the held-out ones


def random_plan(rng: np.random.Generator, config: EnvConfig, slots: Sequence[str]) -> Plan:
    """A plan with a seed in a random subset of slots, mostly started early."""
    chosen = [slot for slot in slots if rng.random() < 0.75] or [str(rng.choice(slots))]
    latest = int(rng.choice([1, 4, config.horizon // 2]))
    return tuple(
        Planned(
            start=int(rng.integers(latest)),
            slot=slot,
            blueprint=str(rng.choice(config.blueprints)),
            operator=str(rng.choice(config.operators)),
            tempo=int(rng.choice(config.tempos)),
        )
        for slot in chosen
    )


def neighbours(rng: np.random.Generator, plan: Plan, config: EnvConfig, slots: Sequence[str], count: int) -> list[Plan]:
    """Plans that differ from one in a single choice."""
    found: list[Plan] = []
    while len(found) < count:
        other = random_plan(rng, config, slots)
        fresh = other[int(rng.integers(len(other)))]
        kept = {seed.slot: seed for seed in plan}
        old = kept.get(fresh.slot)
        field = str(rng.choice(["start", "blueprint", "operator", "tempo", "drop"]))
        if old is None:
            kept[fresh.slot] = fresh
        elif field == "drop" and len(kept) > 1:
            del kept[fresh.slot]
        elif field != "drop":
            kept[fresh.slot] = replace(old, **{field: getattr(fresh, field)})
        candidate = tuple(kept.values())
        if candidate != plan:
            found.append(candidate)
    return found


def search(preset: str, seed: int = 0, on_step: Progress | None = None) -> tuple[IntArray, FloatArray]:
    """Find a good schedule with successive halving, then improve it by single changes.

    Args:
        preset: Registered id.
        seed: Of the search; the episodes' seeds are derived from it and never reach the held-out ones.
        on_step: For progress bars.

    Returns:
        Flat actions of the best schedule ``[T]`` and its returns on the last round's seeds.
    """
    rng = np.random.default_rng(seed)
    env = make_env(preset, NUM_ENVS)
    names, config, slots = names_of(env), env.core.config, env.core.slot_names
    plans = [random_plan(rng, config, slots) for _ in range(ROUNDS[0][0])]
    returns: list[FloatArray] = []
    for num_kept, num_neighbours, num_seeds in ROUNDS:
        plans = plans[:num_kept]
        plans += [plan for best in plans[:4] for plan in neighbours(rng, best, config, slots, num_neighbours)]
        seeds = rng.integers(MAX_SEED, size=num_seeds)
        returns = _measure(env, names, config, plans, seeds, on_step)
        order = sorted(range(len(plans)), key=lambda i: -returns[i].mean())
        plans, returns = [plans[i] for i in order], [returns[i] for i in order]
    return _written_out(plans[0], names, config), returns[0]


def num_search_steps(preset: str) -> int:
    """Environment steps a search takes."""
    horizon = PRESETS.get(preset).config().horizon
    return horizon * sum((num_kept + 4 * num_neighbours) * seeds for num_kept, num_neighbours, seeds in ROUNDS)


def _written_out(plan: Plan, names: Names, config: EnvConfig) -> IntArray:
    return actions_of(plan, names, config.min_training_steps, config.instant)


def _measure(
    env: KasminaVectorEnv,
    names: Names,
    config: EnvConfig,
    plans: Sequence[Plan],
    seeds: IntArray,
    on_step: Progress | None,
) -> list[FloatArray]:
    """Returns of every plan on the same seeds."""
    schedules = np.stack([_written_out(plan, names, config) for plan in plans])
    tasks = [(plan, seed) for plan in range(len(plans)) for seed in seeds]
    returns = np.zeros((len(plans), len(seeds)))
    for start in range(0, len(tasks), env.num_envs):
        part = tasks[start : start + env.num_envs]
        rows = np.array([plan for plan, _ in part])
        policy = Fixed(names, schedules[np.resize(rows, env.num_envs)])
        episodes = play(env, policy, np.array([seed for _, seed in part]), on_step)
        returns.flat[start : start + len(part)] = episodes.returns
    return list(returns)
