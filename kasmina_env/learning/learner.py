"""What learns, in one piece: a model, its environments, and the state from which both go on bit for bit.

The state is that of the beginning of a rollout, the only place where stable-baselines3 can go on. With it belong the
steps of the rollout so far and the environments as they are now (`kasmina_env.learning.recording`).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from sb3_contrib.common.recurrent.type_aliases import RNNStates
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.buffers import ReplayBuffer
from stable_baselines3.common.vec_env import VecEnv, VecMonitor

from kasmina_env.envs.sb3 import KasminaVecEnv
from kasmina_env.envs.vector_env import KasminaVectorEnv
from kasmina_env.episode.episodes import Placement
from kasmina_env.learning.algorithms import ALGORITHMS
from kasmina_env.learning.group_baseline import Paired
from kasmina_env.learning.models import make_model
from kasmina_env.learning.random_states import random_states, set_random_states
from kasmina_env.learning.recording import Recorder
from kasmina_env.learning.seen_masks import MasksObserved
from kasmina_env.learning.time_spent import Clock
from kasmina_env.learning.training_config import TrainingConfig

MONITORED = ("committed_score", "test_accuracy", "num_fossilized", "compute", "is_success")
# Attributes of models, where they have them, that training changes and settings do not determine.
CHANGING = (
    *("num_timesteps", "_episode_num", "_n_updates", "_n_calls", "_current_progress_remaining"),
    *("exploration_rate", "ent_coef", "_last_obs", "_last_episode_starts"),
)
MEMORY = "_last_lstm_states"  # of recurrent models
RECENT = ("ep_info_buffer", "ep_success_buffer")  # results of the latest episodes


@dataclass(frozen=True, eq=False)
class Learner:
    """A model and the environments it learns on, from the inside out."""

    env: KasminaVectorEnv
    recorder: Recorder
    monitor: VecMonitor
    paired: Paired | None
    model: BaseAlgorithm

    @property
    def venv(self) -> VecEnv:
        """The outermost environment, which the model sees."""
        return self.paired or self.monitor

    def close(self) -> None:
        """End the environments."""
        self.env.close()


def make_learner(config: TrainingConfig, num_workers: int, clock: Clock, placement: Placement = "local") -> Learner:
    """A fresh learner.

    Args:
        config: Settings of the run.
        num_workers: Processes or Ray actors over which the networks are spread.
        clock: Measures the time that the environments take.
        placement: See `KasminaVectorEnv`.

    Raises:
        ValueError: If a setting is not allowed.
    """
    algorithm = ALGORITHMS.get(config.algorithm)
    where = {"num_workers": num_workers, "placement": placement}
    rows = KasminaVecEnv(
        config.preset, config.num_envs, action_space=algorithm.action_space, **where, **config.settings
    )
    try:
        recorder = Recorder(rows, clock)
        seen = MasksObserved(recorder) if algorithm.sees_masks else recorder
        monitor = VecMonitor(seen, info_keywords=MONITORED)
        paired = Paired(monitor, config.group, config.group_each_step) if config.group > 1 else None
        model = make_model(config, paired or monitor, rows.env.problem)
    except BaseException:
        rows.close()
        raise
    return Learner(rows.env, recorder, monitor, paired, model)


# ── state ───────────────────────────────────────────────────────────────────────────────────────


def learner_state(learner: Learner) -> dict[str, Any]:
    """State at the beginning of a rollout, but for the environments and a buffer's transitions; not yet a copy."""
    model = learner.model
    state: dict[str, Any] = {
        "policy": model.policy.state_dict(),
        "optimizer": model.policy.optimizer.state_dict(),
        "model": {name: getattr(model, name) for name in CHANGING if hasattr(model, name)},
        "recent": {name: list(getattr(model, name) or ()) for name in RECENT},
        "logged": {name: dict(entries) for name, entries in _logged(model).items()},
        "returns": learner.monitor.episode_returns,
        "lengths": learner.monitor.episode_lengths,
        "random": {**random_states(), "actions": model.action_space.np_random},
    }
    if hasattr(model, MEMORY):
        state["memory"] = [list(pair) for pair in getattr(model, MEMORY)]
    if learner.paired is not None:
        state["earned"] = learner.paired.earned
    if (buffer := replay_buffer(model)) is not None:
        state["buffer"] = {"pos": buffer.pos, "full": buffer.full}
    return state


def set_learner_state(learner: Learner, state: Mapping[str, Any]) -> None:
    """Go back to what `learner_state` returned; global random generators included."""
    model = learner.model
    model.policy.load_state_dict(state["policy"])
    model.policy.optimizer.load_state_dict(state["optimizer"])
    for name, value in state["model"].items():
        setattr(model, name, value)
    for name, entries in state["recent"].items():
        setattr(model, name, deque(entries, maxlen=model._stats_window_size))
    for name, entries in _logged(model).items():
        entries.update(state["logged"][name])
    learner.monitor.episode_returns = state["returns"]
    learner.monitor.episode_lengths = state["lengths"]
    if hasattr(model, MEMORY):
        setattr(model, MEMORY, RNNStates(*(tuple(pair) for pair in state["memory"])))
    if learner.paired is not None:
        learner.paired.earned, learner.paired.steps = state["earned"], state["lengths"].astype(np.int64)
    if (buffer := replay_buffer(model)) is not None:
        buffer.pos, buffer.full = state["buffer"]["pos"], state["buffer"]["full"]
    set_random_states(state["random"])
    model.action_space.np_random.bit_generator.state = state["random"]["actions"].bit_generator.state


def _logged(model: BaseAlgorithm) -> dict[str, dict[str, Any]]:
    """Figures that were recorded and are not yet in the logs."""
    logger = model.logger
    return {"values": logger.name_to_value, "counts": logger.name_to_count, "excluded": logger.name_to_excluded}


# ── buffers of transitions ──────────────────────────────────────────────────────────────────────


def replay_buffer(model: BaseAlgorithm) -> ReplayBuffer | None:
    """Transitions that an off-policy model learns from; None for an on-policy one."""
    return getattr(model, "replay_buffer", None)


def transitions(buffer: ReplayBuffer) -> dict[str, np.ndarray]:
    """Arrays of the part of a buffer that is filled.

    Those of the rollout that is going on are among them. They do no harm to a state of its beginning: before anything
    is drawn, they are put down again in the same places.
    """
    last = buffer.buffer_size if buffer.full else min(buffer.pos + 1, buffer.buffer_size)
    return {name: value[:last] for name, value in vars(buffer).items() if isinstance(value, np.ndarray)}


def fill(buffer: ReplayBuffer, arrays: Mapping[str, np.ndarray]) -> None:
    """Put transitions back into a buffer."""
    for name, values in arrays.items():
        getattr(buffer, name)[: len(values)] = values
