"""Checkpoints: one file from which a training run goes on as if it had never been interrupted.

It holds the learner at the beginning of the rollout that is going on, the steps of that rollout so far, the
environments after them, and the transitions of an off-policy model; see `kasmina_env.learning.learner`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from kasmina_env.envs.saving import describe_snapshot, read_snapshot
from kasmina_env.envs.streams import EnvSnapshot
from kasmina_env.learning.learner import Learner, fill, learner_state, replay_buffer, set_learner_state, transitions
from kasmina_env.learning.recording import Shown
from kasmina_env.learning.time_spent import TimeSpent
from kasmina_env.learning.training_config import TrainingConfig, plain, training_config_of
from kasmina_env.networks.tensor_file import describe, read_file, to_bytes
from kasmina_env.networks.tensor_tree import Packed, pack, unpack
from kasmina_env.settings.documents import write_file

KIND, SCHEMA = "checkpoint of a training run", 1
KEYS = ("training", "num_steps", "rollout", "spent", "steps", "transitions", "environment")
CHECKPOINT = "checkpoint.safetensors"  # in the folder of a run


@dataclass(frozen=True, eq=False)
class Rollout:
    """A run at the beginning of a rollout."""

    state: Packed  # of the learner
    num_steps: int  # environment steps before it, all rows together
    num_rows: int  # in the table of the logs


def begin_rollout(learner: Learner, num_rows: int) -> Rollout:
    """Copy everything that a rollout which begins now depends on, but for the environments."""
    return Rollout(pack(learner_state(learner), "learner"), learner.model.num_timesteps, num_rows)


def save_checkpoint(run: Path, config: TrainingConfig, rollout: Rollout, learner: Learner, spent: TimeSpent) -> None:
    """Write a checkpoint into the folder of a run; a failure leaves the one before as it is.

    Args:
        run: Folder of the run.
        config: Its settings.
        rollout: The rollout that is going on.
        learner: As it is now.
        spent: Time so far.

    Raises:
        OSError: If it cannot be written.
    """
    buffer, recorded = replay_buffer(learner.model), learner.recorder.steps
    steps = pack(recorded, "steps")
    kept = pack({} if buffer is None else transitions(buffer), "transitions")
    environment, episodes = describe_snapshot(learner.env.problem, learner.env.snapshot())
    document = {
        "training": plain(config),
        "num_steps": rollout.num_steps + len(recorded) * config.num_envs,
        "rollout": {"num_steps": rollout.num_steps, "num_rows": rollout.num_rows, "state": rollout.state.tree},
        "spent": dataclasses.asdict(spent),
        "steps": steps.tree,
        "transitions": kept.tree,
        "environment": environment,
    }
    tensors = {**rollout.state.tensors, **steps.tensors, **kept.tensors, **episodes.tensors}
    write_file(run / CHECKPOINT, to_bytes(describe(KIND, SCHEMA, document), tensors), overwrite=True)


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """Content of a checkpoint."""

    rollout: Rollout
    learner: dict[str, Any]  # its state
    spent: TimeSpent
    steps: list[Shown]
    transitions: dict[str, Any]
    episodes: EnvSnapshot


def load_checkpoint(run: Path, config: TrainingConfig, learner: Learner) -> Checkpoint | None:
    """Read the checkpoint of a run; None if there is none yet.

    Args:
        run: Folder of the run.
        config: Its settings; `total_steps` may differ.
        learner: Fresh learner of the same settings.

    Raises:
        ValueError: If it is damaged, or of another version or problem.
    """
    path = run / CHECKPOINT
    if not path.is_file():
        return None
    document, tensors = read_file(path, KIND, SCHEMA, *KEYS)
    own, theirs = plain(config), plain(training_config_of(document["training"]))
    differs = [key for key in own if key != "total_steps" and own[key] != theirs[key]]
    if differs:
        raise ValueError(f"`{path}` must be of the settings beside it, got others: {', '.join(differs)}. Train anew.")
    env = learner.env
    episodes = read_snapshot(path, document["environment"], tensors, env.problem, env.num_envs, env.episodes.dtype)
    try:
        rollout, state = document["rollout"], document["rollout"]["state"]
        return Checkpoint(
            Rollout(Packed(state, tensors), rollout["num_steps"], rollout["num_rows"]),
            unpack(Packed(state, tensors), dict[str, Any], "learner"),
            TimeSpent(**document["spent"]),
            _part(document, tensors, "steps", list[Shown]),
            _part(document, tensors, "transitions", dict[str, Any]),
            episodes,
        )
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"`{path}` must be a checkpoint as this version has them: {error}. Train anew.") from error


def num_steps_saved(run: Path) -> int:
    """Environment steps in the checkpoint of a run, those of an unfinished rollout included; 0 if there is none."""
    path = run / CHECKPOINT
    return int(read_file(path, KIND, SCHEMA, *KEYS)[0]["num_steps"]) if path.is_file() else 0


def go_on(learner: Learner, checkpoint: Checkpoint) -> None:
    """Put a fresh learner where a checkpoint left off."""
    learner.env.restore(checkpoint.episodes)
    learner.recorder.steps[:] = checkpoint.steps
    if (buffer := replay_buffer(learner.model)) is not None:
        fill(buffer, checkpoint.transitions)
    set_learner_state(learner, checkpoint.learner)


def _part(document: Mapping[str, Any], tensors: Mapping[str, Tensor], name: str, kind: Any) -> Any:
    return unpack(Packed(document[name], tensors), kind, name)
