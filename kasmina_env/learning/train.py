"""Training of a controller with stable-baselines3; an interruption at any moment costs less than a minute."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.callbacks import BaseCallback

from kasmina_env.controllers.policy import MAX_SEED
from kasmina_env.episode.episodes import Placement
from kasmina_env.learning.checkpoint import Rollout, begin_rollout, go_on, load_checkpoint, save_checkpoint
from kasmina_env.learning.controller_file import MODEL, controller_to_bytes, load_controller
from kasmina_env.learning.hyperparameters import annealed
from kasmina_env.learning.imitation import imitate_rules, rules_to_imitate
from kasmina_env.learning.learner import MONITORED, Learner, make_learner
from kasmina_env.learning.logs import ProgressTable, open_logs
from kasmina_env.learning.models import preferences
from kasmina_env.learning.random_states import untouched_random_states
from kasmina_env.learning.run_folder import check_new_run, check_resumable, keep_config, locked, make_run_folder
from kasmina_env.learning.stop_signals import StopSignals, stop_signals
from kasmina_env.learning.time_spent import Clock, TimeSpent
from kasmina_env.learning.training_config import TrainingConfig
from kasmina_env.settings.documents import write_file

SAVE_EVERY = 30.0  # seconds: with a step and the saving itself, less than a minute is lost


@dataclass(frozen=True)
class Progress:
    """How far a training run is.

    Attributes:
        steps: Environment steps done, all rows together.
        total_steps: Steps of the run.
        score: Mean committed score of the latest episodes, at most 100; NaN until the first ones have ended.
        speed: Steps per second since this process began to train; 0 at first.
        spent: Where the time went.
    """

    steps: int
    total_steps: int
    score: float
    speed: float
    spent: TimeSpent


Report = Callable[[Progress], None]


def train(
    config: TrainingConfig,
    out: Path,
    report: Report = lambda progress: None,
    resume: bool = False,
    num_workers: int = 1,
    placement: Placement = "local",
) -> BaseAlgorithm:
    """Train a controller.

    The folder holds training.json from the beginning, checkpoint.safetensors, logs (TensorBoard, CSV) and, in the end,
    model.safetensors. A checkpoint is written before the first step, after every half minute at the end of a step, on
    Ctrl-C and SIGTERM, and at the end. A resumed run goes on bit for bit as one that was never interrupted: weights,
    episodes and logs (but for times) are the same, also of an off-policy algorithm, whose buffer is kept.

    Ctrl-C or SIGTERM ends the training after the step that is going on, and is then raised again for whoever handled
    it before; a second one ends it at once. Global random states are as before when this returns.

    Args:
        config: Settings.
        out: Folder of the run: made here, or the one to go on in.
        report: Called at the start, when everything has been accepted, and after every step of all rows; not at all
            where nothing is left to do.
        resume: Whether to go on from the folder's checkpoint; the settings must be the same but for `total_steps`.
        num_workers: Processes or Ray actors over which the networks are spread.
        placement: See `KasminaVectorEnv`.

    Raises:
        FileExistsError: If a new run's folder has something in it.
        FileNotFoundError: If there is nothing to go on with, or there are no rules to imitate.
        ValueError: If a setting is not allowed, or a file of the folder is damaged or does not fit.
        RuntimeError: If another process trains in the folder.
    """
    with ExitStack() as stack:
        stop = stack.enter_context(stop_signals())
        stack.enter_context(untouched_random_states())
        if resume:
            check_resumable(out, config)
            stack.enter_context(locked(out))
        else:
            check_new_run(out)
        clock = Clock()
        learner = make_learner(config, num_workers, clock, placement)
        stack.callback(learner.close)
        checkpoint = load_checkpoint(out, config, learner) if resume else None
        if resume:
            keep_config(out, config)
        else:
            if config.imitate:
                rules_to_imitate(learner.env.problem)  # raises where there are none, before anything is written
            make_run_folder(out, config)
            stack.enter_context(locked(out))
        model, rollout = learner.model, None if checkpoint is None else checkpoint.rollout
        logger, table = open_logs(out, rollout.num_rows if rollout else 0, rollout.num_steps if rollout else 0)
        stack.callback(logger.close)
        model.set_logger(logger)
        stack.callback(torch.set_num_threads, torch.get_num_threads())
        if checkpoint is None:
            # Not the seeds of a run with the next seed: row i of a population has this one + i.
            learner.venv.seed(first_seed(config))
            if config.imitate:
                preferred = preferences(learner.env.problem.actions, 0.0, config.prior)
                imitate_rules(model.policy, learner.env.problem, preferred, config.seed, config.hindsight)
        else:
            clock.go_on(checkpoint.spent)
            go_on(learner, checkpoint)
        keeper = Keeper(config, out, learner, table, clock, stop, report, is_saved=checkpoint is not None)
        if model.num_timesteps < config.total_steps:
            model.learn(config.total_steps - model.num_timesteps, callback=keeper, reset_num_timesteps=False)
        if not keeper.is_stopped and not _is_written(out, model):
            write_file(out / MODEL, controller_to_bytes(config, learner.env.problem, model), overwrite=True)
    return model


def _is_written(run: Path, model: BaseAlgorithm) -> bool:
    """Whether the folder of a run holds the finished model."""
    try:
        return load_controller(run / MODEL).steps == model.num_timesteps
    except (FileNotFoundError, ValueError):
        return False


def first_seed(config: TrainingConfig) -> int:
    """A seed for the environments of a run; below those of evaluation."""
    return int(np.random.default_rng([config.seed, 0]).integers(MAX_SEED - config.num_envs))


class Keeper(BaseCallback):
    """Saves, logs, measures and reports while a model learns.

    Args:
        config: Settings of the run.
        out: Its folder.
        learner: Model and environments.
        table: Table of its logs.
        clock: Measures what time is spent on.
        stop: Signals that ask for an end.
        report: See `train`.
        is_saved: Whether there is a checkpoint of the beginning already.
    """

    def __init__(
        self,
        config: TrainingConfig,
        out: Path,
        learner: Learner,
        table: ProgressTable,
        clock: Clock,
        stop: StopSignals,
        report: Report,
        is_saved: bool,
    ) -> None:
        super().__init__()
        self._config, self._out, self._learner, self._table = config, out, learner, table
        self._clock, self._stop, self._report, self._is_saved = clock, stop, report, is_saved
        self._entropy = annealed("ent_coef", config.hyperparameters.get("ent_coef"))
        self._num_threads = torch.get_num_threads()
        self._rollout: Rollout | None = None
        self.is_stopped = False  # in the middle of a rollout
        self._first_steps, self._start, self._saved_at = 0, 0.0, 0.0

    # ── called by the model ──────────────────────────────────────────────────────────────────

    def _on_training_start(self) -> None:
        self._first_steps, self._start, self._saved_at = self.num_timesteps, time.monotonic(), time.monotonic()
        # Its logs count from the start of the run, whichever process that was in.
        self.model.start_time -= int(self._clock.spent.total * 1e9)
        self.model._num_timesteps_at_start = 0
        self._stop.install()
        self._tell()

    def _on_rollout_start(self) -> None:
        torch.set_num_threads(self._num_threads)
        self._clock.switch("policy")
        self._learner.recorder.begin()
        self._begin_rollout()
        if not self._is_saved:
            self._save()

    def _on_step(self) -> bool:
        self.is_stopped = self._stop.number is not None
        if self.is_stopped or time.monotonic() - self._saved_at >= SAVE_EVERY:
            self._save()
        self._tell()
        return not self.is_stopped

    def _on_rollout_end(self) -> None:
        if callable(self._entropy):
            # stable-baselines3 takes this weight as a number and not as a function of time.
            self.model.ent_coef = self._entropy(max(1 - self.num_timesteps / self._config.total_steps, 0.0))  # type: ignore[attr-defined]
        episodes = list(self.model.ep_info_buffer or ())
        for key in MONITORED if episodes else ():
            self.logger.record(f"episode/{key}", float(np.mean([episode[key] for episode in episodes])))
        self._clock.switch("update")
        # More of them only wait for each other in networks this small, and for the workers' cores.
        torch.set_num_threads(1)

    def _on_training_end(self) -> None:
        if self.is_stopped:
            return
        self._learner.recorder.begin()
        self._begin_rollout()
        self._save()
        self._clock.switch("")
        self._tell()

    # ── what it does ─────────────────────────────────────────────────────────────────────────

    def _begin_rollout(self) -> None:
        self._rollout = begin_rollout(self._learner, len(self._table))

    def _save(self) -> None:
        assert self._rollout is not None
        with self._clock.during("saving"):
            save_checkpoint(self._out, self._config, self._rollout, self._learner, self._clock.spent)
        self._is_saved, self._saved_at = True, time.monotonic()

    def _tell(self) -> None:
        episodes = list(self.model.ep_info_buffer or ())
        done, seconds = self.num_timesteps - self._first_steps, time.monotonic() - self._start
        self._report(
            Progress(
                steps=self.num_timesteps,
                total_steps=self._config.total_steps,
                score=float(np.mean([e["committed_score"] for e in episodes])) if episodes else float("nan"),
                speed=done / seconds if done else 0.0,
                spent=self._clock.spent,
            )
        )
