"""Open-loop search for the best fixed schedule: many plans at once, as rows of one population."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from agents.policy import FloatArray, IntArray, Progress, make_env, names_of, play
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
    config, slots = env.core.config, env.core.slot_names
    plans = [random_plan(rng, config, slots) for _ in range(ROUNDS[0][0])]
    returns = np.zeros((len(plans), 0))
    for num_kept, num_neighbours, num_seeds in ROUNDS:
        plans = plans[:num_kept]
        plans += [plan for best in plans[:4] for plan in neighbours(rng, best, config, slots, num_neighbours)]
        seeds = rng.integers(MAX_SEED, size=num_seeds)
        returns = measure(env, plans, seeds, on_step=on_step)
        order = np.argsort(-returns.mean(axis=1), kind="stable")
        plans, returns = [plans[i] for i in order], returns[order]
    return actions_in(env, plans[0]), returns[0]


def num_search_steps(preset: str) -> int:
    """Environment steps a search takes."""
    horizon = PRESETS.get(preset).config().horizon
    return horizon * sum((num_kept + 4 * num_neighbours) * seeds for num_kept, num_neighbours, seeds in ROUNDS)


def actions_in(env: KasminaVectorEnv, plan: Plan) -> IntArray:
    """A plan written out as flat actions of an environment, ``[T]``."""
    config = env.core.config
    return actions_of(plan, names_of(env), config.min_training_steps, config.instant)


def measure(
    env: KasminaVectorEnv,
    plans: Sequence[Plan],
    seeds: IntArray,
    instances: IntArray | None = None,
    on_step: Progress | None = None,
) -> FloatArray:
    """Returns of every plan on the same episodes, ``[P, E]``; all of them side by side, as rows of one population.

    Args:
        env: Any number of rows.
        plans: P plans.
        seeds: Of E episodes.
        instances: Of a family, one for each episode; left out: the seeds draw them.
        on_step: For progress bars.
    """
    schedules = np.stack([actions_in(env, plan) for plan in plans])
    of_plan, of_episode = (index.ravel() for index in np.indices((len(plans), len(seeds))))
    returns = np.zeros(len(of_plan))
    for start in range(0, len(of_plan), env.num_envs):
        part = slice(start, start + env.num_envs)
        policy = Fixed(names_of(env), schedules[np.resize(of_plan[part], env.num_envs)])
        chosen = None if instances is None else instances[of_episode[part]]
        returns[part] = play(env, policy, seeds[of_episode[part]], on_step, chosen).returns
    return returns.reshape(len(plans), len(seeds))
