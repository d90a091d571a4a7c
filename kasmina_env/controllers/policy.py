"""Policies: the protocol, the registry, and the loop that plays one."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

import numpy as np

from kasmina_env.envs.vector_env import KasminaVectorEnv
from kasmina_env.episode.episodes import Episodes
from kasmina_env.episode.problem import Problem
from kasmina_env.episode.report import LOST
from kasmina_env.lifecycle.arrays import BoolArray, Float32Array, FloatArray, IntArray
from kasmina_env.settings.registry import Registry

HELD_OUT = 1_000_000  # evaluation seeds start here
MAX_SEED = 500_000  # training and search use seeds below this one
FIRST_SEEDS = {"test": HELD_OUT, "train": MAX_SEED}  # of a comparison, by the split of its instances


class Policy(Protocol):
    """A controller of N networks at once, made for a `Problem`."""

    def begin(self, seeds: IntArray, episodes: Episodes) -> None:
        """Start N episodes. A policy without memory need not override this.

        Args:
            seeds: Seeds of the episodes ``[N]``.
            episodes: The episodes; only an upper reference may look into them.
        """
        return

    def act(self, observation: Float32Array, mask: BoolArray) -> IntArray:
        """Choose flat actions ``[N]`` from observations ``[N, F]`` and masks of legal actions ``[N, A]``."""
        ...


@dataclass(frozen=True)
class Control:
    """A policy by name.

    Attributes:
        make: Factory of the policy for a problem.
        meaning: One line for people.
        settings: Settings of its environment that differ from those of the problem.
        planted: Function of the problem that returns flat GERMINATE actions to carry out before the first step.
        is_bound: Whether it is an upper reference, which knows the course of the episode it plays.
        is_learned: Whether it was trained; results show it as a learned controller, not as one to beat.
        is_searched: Whether it was searched for the settings of the id; it is not played with others.
    """

    make: Callable[[Problem], Policy]
    meaning: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    planted: Callable[[Problem], IntArray] | None = None
    is_bound: bool = False
    is_learned: bool = False
    is_searched: bool = False


CONTROLS: Registry[Control] = Registry("policy")
MakeT = TypeVar("MakeT", bound=Callable[[Problem], Policy])


def register_policy(
    name: str,
    meaning: str = "",
    *,
    settings: Mapping[str, Any] | None = None,
    planted: Callable[[Problem], IntArray] | None = None,
    is_bound: bool = False,
    is_learned: bool = False,
    is_searched: bool = False,
) -> Callable[[MakeT], MakeT]:
    """Register a class or function that makes a policy for a problem.

    Args:
        name: New name; a duplicate raises ``ValueError``.
        meaning: One line for people; by default the first line of its docstring.
        settings: See `Control`.
        planted: See `Control`.
        is_bound: See `Control`.
        is_learned: See `Control`.
        is_searched: See `Control`.
    """

    def decorate(make: MakeT) -> MakeT:
        line = meaning or (make.__doc__ or name).strip().splitlines()[0].rstrip(".")
        CONTROLS.register(name, Control(make, line, settings or {}, planted, is_bound, is_learned, is_searched))
        return make

    return decorate


# ── playing ─────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class Played:
    """Finished episodes of one policy, in the order of their seeds. E episodes, T steps."""

    seeds: IntArray  # [E]
    instances: IntArray  # [E] number of each episode's instance
    returns: FloatArray  # [E] sum of rewards
    scores: FloatArray  # [E] committed
    test_accuracies: FloatArray  # [E]
    num_fossilized: IntArray  # [E] seeds kept
    param_growths: FloatArray  # [E] fossilized parameters over the host's
    computes: FloatArray  # [E] mean compute of seeds over the host's
    illegal: IntArray  # [E] actions that were not legal
    actions: IntArray  # [E, T] flat, as carried out: WAIT for one that was not legal; -1 beyond the end
    curves: FloatArray  # [E, T + 1] score after every step, NaN beyond the end

    def __len__(self) -> int:
        return len(self.seeds)


OnStep = Callable[[int], None]  # takes the number of steps since the last call


def instances_of(problem: Problem, split: str) -> IntArray | None:
    """Numbers of the instances in a split ("train" or "test"); None if the problem is no family."""
    return problem.instances.split(split) if problem.is_family else None


def instances_in_turn(problem: Problem, seeds: IntArray, split: str = "test") -> IntArray | None:
    """Instances ``[E]`` of a comparison: those of the split in turn; None if the problem is no family.

    Args:
        problem: Problem of the episodes.
        seeds: Seeds of the episodes ``[E]``; they count from `FIRST_SEEDS`.
        split: "test" or "train".
    """
    numbers = instances_of(problem, split)
    return None if numbers is None else numbers[(seeds - FIRST_SEEDS[split]) % len(numbers)]


def play(
    env: KasminaVectorEnv,
    policy: Policy,
    seeds: IntArray,
    on_step: OnStep | None = None,
    instances: IntArray | None = None,
    planted: IntArray | None = None,
) -> Played:
    """Play one episode per seed, as many side by side as the environment has rows.

    Args:
        env: Environment of N rows whose `autoreset_mode` is not SAME_STEP.
        policy: Policy that chooses the actions.
        seeds: Seeds of E episodes. Equal seeds give equal hosts and minibatches under every policy.
        on_step: Callback for progress bars.
        instances: Instances of a family ``[E]``; by default each seed draws one from the train split.
        planted: Flat GERMINATE actions to carry out before the first step.
    """
    parts = []
    for start in range(0, len(seeds), env.num_envs):
        part = slice(start, start + env.num_envs)
        chosen = None if instances is None else instances[part]
        parts.append(_play_batch(env, policy, seeds[part], on_step, chosen, planted))
    columns = {name: np.concatenate([getattr(part, name) for part in parts]) for name in Played.__dataclass_fields__}
    return Played(**columns)


def _play_batch(
    env: KasminaVectorEnv,
    policy: Policy,
    seeds: IntArray,
    on_step: OnStep | None,
    instances: IntArray | None,
    planted: IntArray | None,
) -> Played:
    n, horizon = env.num_envs, env.problem.horizon
    padded = np.concatenate([seeds, np.zeros(n - len(seeds), dtype=np.int64)])
    options: dict[str, Any] = {} if planted is None else {"planted": planted}
    if instances is not None:
        options["instance"] = np.resize(instances, n).tolist()
    observation, infos = env.reset(seed=padded.tolist(), options=options)
    policy.begin(padded, env.episodes)
    is_open = np.ones(n, dtype=bool)
    returns, illegal = np.zeros(n), np.zeros(n, dtype=np.int64)
    actions, curves = np.full((n, horizon), -1), np.full((n, horizon + 1), np.nan)
    curves[:, 0] = infos["score"]
    names = ("committed_score", "test_accuracy", "num_fossilized", "param_growth", "compute", "instance")
    final = {name: np.zeros(n) for name in names}
    for step in range(horizon):
        chosen = policy.act(observation, env.action_masks())
        observation, reward, terminated, _, infos = env.step(chosen)
        if (infos["failure"][is_open] == LOST).any():
            raise RuntimeError("Episodes were lost with a worker, and no other could take them. Play them again.")
        is_done = terminated & is_open
        legal = infos["action_legal"].astype(bool)
        returns += np.where(is_open, reward, 0.0)
        illegal += is_open & ~legal
        actions[is_open, step] = np.where(legal, chosen, 0)[is_open]
        curves[is_open, step + 1] = infos["score"][is_open]
        for name in names if is_done.any() else ():
            final[name][is_done] = infos[name][is_done]
        is_open &= ~is_done
        if on_step is not None:
            on_step(len(seeds))
        if not is_open.any():
            break
    kept = slice(len(seeds))
    return Played(
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
