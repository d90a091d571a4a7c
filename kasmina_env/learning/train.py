"""Learning a controller with stable-baselines3 on the native vector environment."""

from __future__ import annotations

import inspect
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.logger import configure
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm
from stable_baselines3.common.vec_env import VecEnv, VecMonitor

from kasmina_env.controllers.policy import MAX_SEED, Policy
from kasmina_env.envs.sb3 import KasminaVecEnv
from kasmina_env.episode.problem import Problem
from kasmina_env.learning.algorithms import ALGORITHMS, learned_policy
from kasmina_env.learning.group_baseline import Paired
from kasmina_env.learning.models import annealed, make_model
from kasmina_env.learning.training_config import TrainingConfig, config_of_run, load_training_config, plain

MONITORED = ("committed_score", "test_accuracy", "num_fossilized", "compute", "is_success")


def load_learned(run: Path, problem: Problem) -> Policy:
    """The controller in the folder of a finished training run, for a problem."""
    algorithm = ALGORITHMS.get(config_of_run(run).algorithm)
    return learned_policy(algorithm, algorithm.model.load(run / "model.zip", device="cpu"), problem)


class Checkpoints(BaseCallback):
    """After as many steps as all rows take for an episode: report; after five times as many: save.

    Args:
        out: Folder of the run.
        every: Steps between reports.
        report: Called with steps done and the mean committed score of the latest episodes, NaN at the start.
    """

    def __init__(self, out: Path, every: int, report: Callable[[int, float], None]) -> None:
        super().__init__()
        self._out, self._every, self._report, self._num_reports = out, every, report, 0

    def _on_training_start(self) -> None:
        self._num_reports = self.num_timesteps // self._every
        self._report(self.num_timesteps, float("nan"))  # everything was accepted; no episode has ended

    def _on_step(self) -> bool:
        return True

    def _on_rollout_end(self) -> None:
        if self.num_timesteps // self._every <= self._num_reports:
            return
        self._num_reports = self.num_timesteps // self._every
        episodes = list(self.model.ep_info_buffer or ())
        for key in MONITORED:
            if episodes:
                self.logger.record(f"episode/{key}", float(np.mean([e[key] for e in episodes])))
        score = float(np.mean([e["committed_score"] for e in episodes])) if episodes else float("nan")
        self._report(self.num_timesteps, score)
        if self._num_reports % 5 == 0:
            save_model(self.model, self._out / "checkpoint.zip")


class FallingEntropy(BaseCallback):
    """Lets the weight of the entropy fall, which stable-baselines3 takes as a number and not as a function of time.

    Args:
        weight: Of what remains of the run, from 1 to 0.
        total_steps: Of the run.
    """

    def __init__(self, weight: Callable[[float], float], total_steps: int) -> None:
        super().__init__()
        self._weight, self._total_steps = weight, total_steps

    def _on_step(self) -> bool:
        return True

    def _on_rollout_end(self) -> None:
        self.model.ent_coef = self._weight(max(1 - self.num_timesteps / self._total_steps, 0.0))  # type: ignore[attr-defined]


def save_model(model: Any, path: Path) -> None:
    """Write a model whole or not at all: to a temporary file, then renamed."""
    temporary = path.with_suffix(".tmp.zip")
    model.save(temporary)
    with temporary.open("rb") as file:
        os.fsync(file.fileno())
    temporary.replace(path)


def train(
    config: TrainingConfig,
    out: Path,
    report: Callable[[int, float], None] = lambda steps, score: None,
    resume: bool = False,
    num_workers: int = 1,
) -> BaseAlgorithm:
    """Train a controller; the folder then holds training.json, model.zip, checkpoint.zip, and logs (TensorBoard, CSV).

    What a resumed run goes on with: networks, optimisers, counters and the schedules that depend on them. Its episodes
    are fresh ones. An off-policy algorithm's buffer of transitions is not kept: as at first, it is filled by random
    actions for ``learning_starts`` steps, before learning goes on.

    Args:
        config: Settings.
        out: Folder of the run, made here.
        report: Called at the start and then now and then, with steps done and mean committed score or NaN.
        resume: Go on from the folder's checkpoint; its config must be the same but for `total_steps`.
        num_workers: Processes over which the networks are spread.
    """
    algorithm = ALGORITHMS.get(config.algorithm)
    if resume:
        _check_resumable(config, out)
    settings = {"action_space": algorithm.action_space, "num_workers": num_workers, **config.settings}
    rows = KasminaVecEnv(config.preset, config.num_envs, **settings)
    problem = rows.env.problem
    venv: VecEnv = VecMonitor(rows, info_keywords=MONITORED)
    if config.group > 1:
        venv = Paired(venv, config.group)
    if resume:
        model = algorithm.model.load(out / "checkpoint.zip", env=venv, device="cpu")
        if isinstance(model, OffPolicyAlgorithm):
            fresh = inspect.signature(algorithm.model).parameters["learning_starts"].default
            model.learning_starts = model.num_timesteps + config.hyperparameters.get("learning_starts", fresh)
    else:
        model = make_model(config, venv, problem)
    # not the episodes of the start again, nor those of a run with the next seed: row i of a population has seed + i
    venv.seed(fresh_seed(config, model.num_timesteps))
    out.mkdir(parents=True, exist_ok=True)
    (out / "training.json").write_text(json.dumps(plain(config), indent=2) + "\n", encoding="utf-8")
    if not resume:
        save_model(model, out / "checkpoint.zip")  # however early a run is stopped, it can go on
    # a resumed run logs beside what it goes on from
    model.set_logger(configure(str(out / "logs" / f"{model.num_timesteps:09d}"), ["tensorboard", "csv"]))
    callbacks: list[BaseCallback] = [Checkpoints(out, problem.horizon * config.num_envs, report)]
    entropy = annealed("ent_coef", config.hyperparameters.get("ent_coef"))
    if callable(entropy):
        callbacks.append(FallingEntropy(entropy, config.total_steps))
    try:
        if model.num_timesteps < config.total_steps:
            remaining = config.total_steps - model.num_timesteps
            model.learn(remaining, callback=callbacks, reset_num_timesteps=False)
        save_model(model, out / "checkpoint.zip")
        save_model(model, out / "model.zip")
    finally:
        model.logger.close()
        venv.close()
    return model


def fresh_seed(config: TrainingConfig, num_steps: int) -> int:
    """A seed for the environments of a run that begins or goes on after so many steps; below those of evaluation."""
    return int(np.random.default_rng([config.seed, num_steps]).integers(MAX_SEED - config.num_envs))


def _check_resumable(config: TrainingConfig, out: Path) -> None:
    """Raise one clear sentence, and write nothing, where a folder holds no checkpoint of this config."""
    if not (out / "checkpoint.zip").is_file():
        raise FileNotFoundError(f"`out` must hold a checkpoint to resume from, got {out}. Train without --resume.")
    found = plain(load_training_config(out / "training.json"))
    for key, value in plain(config).items():
        if key != "total_steps" and found[key] != value:
            raise ValueError(f"`{key}` must be {found[key]!r} as in {out}, got {value!r}. Resume with the same config.")
