"""What a controller is, and how one plays: a batched protocol and one rollout loop."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import gymnasium as gym
import numpy as np

from kasmina_env.envs.vector_env import KasminaVectorEnv
from kasmina_env.lifecycle.arrays import BoolArray, Float32Array, FloatArray, IntArray

HELD_OUT = 1_000_000  # evaluation seeds start here
MAX_SEED = 500_000  # training and search use seeds below this one
FIRST_SEEDS = {"test": HELD_OUT, "train": MAX_SEED}  # of a comparison on the instances of a split


class Policy(Protocol):
    """A controller of N networks at once.

    It sees what any controller may see, the observation, and must not keep state that the observation does not restart:
    a policy may be asked about any networks at any time.
    """

    def act(self, observation: Float32Array, mask: BoolArray) -> IntArray:
        """Choose flat actions ``[N]`` from observations ``[N, F]`` and masks of legal actions ``[N, A]``."""
        ...


@dataclass(frozen=True)
class Names:
    """What the entries of observations and actions are called; all a scripted policy knows of an environment."""

    observation: tuple[str, ...]
    action: tuple[str, ...]
    horizon: int

    def column(self, name: str) -> int:
        """Index of an observation's entry."""
        return self.observation.index(name)


def make_env(preset: str, num_envs: int, **settings: Any) -> KasminaVectorEnv:
    """A vector environment of an id, with its own type."""
    env = gym.make_vec(preset, num_envs=num_envs, **settings)
    assert isinstance(env, KasminaVectorEnv)
    return env


def make_equal(env: KasminaVectorEnv, num_envs: int) -> KasminaVectorEnv:
    """Another environment of the same problem, whose rows may take over episodes of the first."""
    assert env.spec is not None
    own = ("preset", "num_envs", "vectorization_mode", "render_mode", "autoreset_mode")
    settings = {key: value for key, value in env.spec.kwargs.items() if key not in own}
    return make_env(env.spec.id, num_envs, **settings)


def preset_of(env: KasminaVectorEnv) -> str:
    """Registered id an environment was made from."""
    assert env.spec is not None
    return env.spec.id


def instances_of(env: KasminaVectorEnv, split: str) -> IntArray | None:
    """Numbers of a family's instances to train on, or to test on; None for a problem without a family."""
    instances = env.core.instances
    return instances.split(split) if len(instances) > 1 else None


def instances_for(env: KasminaVectorEnv, seeds: IntArray, split: str = "test") -> IntArray | None:
    """Which instance of a family each episode of a comparison is about: its split in turn; None without a family.

    Args:
        env: Of the problem.
        seeds: Of the episodes ``[E]``; they count from `FIRST_SEEDS`.
        split: "test" or "train".
    """
    numbers = instances_of(env, split)
    return None if numbers is None else numbers[(seeds - FIRST_SEEDS[split]) % len(numbers)]


def names_of(env: KasminaVectorEnv) -> Names:
    """Names of a vector environment's entries."""
    return Names(env.observation_names, env.action_names, env.core.config.horizon)


@dataclass(frozen=True)
class Episodes:
    """Finished episodes of one policy, in the order of their seeds. E episodes, T steps."""

    seeds: IntArray  # [E]
    instances: IntArray  # [E] number of each
    returns: FloatArray  # [E] sum of rewards
    scores: FloatArray  # [E] committed
    test_accuracies: FloatArray  # [E]
    num_fossilized: IntArray  # [E] seeds kept
    param_growths: FloatArray  # [E] fossilized parameters over the host's
    computes: FloatArray  # [E] mean compute of seeds over the host's
    illegal: IntArray  # [E] actions that were not legal
    actions: IntArray  # [E, T] flat, as carried out: WAIT where one was not legal; -1 beyond the end
    curves: FloatArray  # [E, T + 1] score after every step, NaN beyond the end

    def __len__(self) -> int:
        return len(self.seeds)


Progress = Callable[[int], None]  # called with the number of steps done since the last call


def play(
    env: KasminaVectorEnv,
    policy: Policy,
    seeds: IntArray,
    on_step: Progress | None = None,
    instances: IntArray | None = None,
) -> Episodes:
    """Play one episode for each seed, as many side by side as the environment has rows.

    Args:
        env: N rows that reset in the same step.
        policy: Who decides.
        seeds: E seeds; equal seeds give equal hosts and equal minibatches, whoever plays.
        on_step: For progress bars.
        instances: Of a family ``[E]``; left out: each seed draws its own from the train split.
    """
    parts = []
    for start in range(0, len(seeds), env.num_envs):
        part = slice(start, start + env.num_envs)
        chosen = None if instances is None else instances[part]
        parts.append(_play_batch(env, policy, seeds[part], on_step, chosen))
    columns = {name: np.concatenate([getattr(part, name) for part in parts]) for name in Episodes.__dataclass_fields__}
    return Episodes(**columns)


def _play_batch(
    env: KasminaVectorEnv, policy: Policy, seeds: IntArray, on_step: Progress | None, instances: IntArray | None
) -> Episodes:
    n, horizon = env.num_envs, env.core.config.horizon
    padded = np.concatenate([seeds, np.zeros(n - len(seeds), dtype=np.int64)])
    options = None if instances is None else {"instance": np.resize(instances, n).tolist()}
    observation, infos = env.reset(seed=padded.tolist(), options=options)
    is_open = np.ones(n, dtype=bool)
    returns, illegal = np.zeros(n), np.zeros(n, dtype=np.int64)
    actions, curves = np.full((n, horizon), -1), np.full((n, horizon + 1), np.nan)
    curves[:, 0] = infos["score"]
    facts = ("committed_score", "test_accuracy", "num_fossilized", "param_growth", "compute", "instance")
    final = {name: np.zeros(n) for name in facts}
    for step in range(horizon):
        chosen = policy.act(observation, env.action_masks())
        observation, reward, terminated, truncated, infos = env.step(chosen)
        is_done = (terminated | truncated) & is_open
        last = infos.get("final_info", infos)
        legal = np.where(is_done, last["action_legal"], infos["action_legal"]).astype(bool)
        score = np.where(is_done, last["score"], infos["score"])
        returns += np.where(is_open, reward, 0.0)
        illegal += is_open & ~legal
        actions[is_open, step] = np.where(legal, chosen, 0)[is_open]
        curves[is_open, step + 1] = score[is_open]
        for name, values in final.items():
            values[is_done] = last[name][is_done] if is_done.any() else 0.0
        is_open &= ~is_done
        if on_step is not None:
            on_step(len(seeds))
        if not is_open.any():
            break
    kept = slice(len(seeds))
    return Episodes(
        seeds=seeds,
        instances=final["instance"][kept].astype(np.int64),
        returns=returns[kept],
        scores=final["committed_score"][kept],
        test_accuracies=final["test_accuracy"][kept],
        num_fossilized=final["num_fossilized"][kept].astype(np.int64),
        param_growths=final["param_growth"][kept],
        computes=final["compute"][kept],
        illegal=illegal[kept],
        actions=actions[kept],
        curves=curves[kept],
    )
