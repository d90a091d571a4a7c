"""Learning a controller with stable-baselines3 on the native vector environment."""

from __future__ import annotations

import dataclasses
import inspect
import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from sb3_contrib import MaskablePPO
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.logger import configure
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm
from stable_baselines3.common.vec_env import VecEnv, VecMonitor

from agents.algorithms import ALGORITHMS, annealed, make_model, make_player
from agents.paired import Paired
from agents.policy import MAX_SEED, Policy, make_env, names_of
from kasmina_env import KasminaVectorEnv
from kasmina_env.config import check_nested
from kasmina_env.files import read_document
from kasmina_env.sb3 import KasminaVecEnv
from kasmina_env.shipped import config_path, slug

MONITORED = ("committed_score", "test_accuracy", "num_fossilized", "compute", "is_success")


@dataclass(frozen=True)
class Recipe:
    """Settings of one training run.

    Attributes:
        preset: Registered id.
        algorithm: Name in `agents.algorithms.ALGORITHMS`.
        total_steps: Environment steps, all rows together.
        num_envs: Rows of the population.
        group: Rows next to each other that play the same episodes and are measured against each other
            (`agents.paired`); 1: none are.
        net: Hidden layers of the networks.
        nearness: Whether `ent_coef` weighs nearness to a policy to which all operations weigh the same, in place of
            entropy; of MaskablePPO only, as is what follows (`agents.actor`).
        shared_parts: Whether actions with the same slot, blueprint and so on learn from each other.
        seed: Of the controller and of the environments.
        settings: Fields of `kasmina_env.config.EnvConfig` that differ from the preset.
        hyperparameters: Keyword arguments of the algorithm's class in stable-baselines3. Episodes are finite and
            their return is not discounted, hence gamma 1 in all recipes that come with this.
    """

    preset: str = "Kasmina/Digits-v0"
    algorithm: str = "maskable_ppo"
    total_steps: int = 60_000
    num_envs: int = 64
    group: int = 1
    net: tuple[int, ...] = (64, 64)
    nearness: bool = False
    shared_parts: bool = False
    seed: int = 0
    settings: Mapping[str, Any] = field(default_factory=dict)
    hyperparameters: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in ("total_steps", "num_envs", "group"):
            if getattr(self, name) < 1:
                raise ValueError(f"`{name}` must be at least 1, got {getattr(self, name)}. Train for some steps.")
        if not 0 <= self.seed <= MAX_SEED - self.num_envs:
            raise ValueError(
                f"`seed` must be from 0 to {MAX_SEED - self.num_envs}, got {self.seed}. Larger ones are for evaluation."
            )


def load_recipe(path: Path, **overrides: Any) -> Recipe:
    """Read a recipe from JSON; an unknown key, whose nearest is named, or a value of another kind raises."""
    given = {**read_document(path), **overrides}
    values: dict[str, Any] = {key: tuple(v) if isinstance(v, list) else v for key, v in given.items()}
    check_nested("recipe", Recipe, values)
    return Recipe(**values)


def recipe_path(preset: str, algorithm: str) -> Path:
    """The recipe that comes for an algorithm: that for the id if there is one, otherwise that for all ids."""
    ALGORITHMS.get(algorithm)
    try:
        return config_path(f"{slug(preset)}.{algorithm}.json", "")
    except FileNotFoundError:
        return config_path(f"{algorithm}.json", "Give one with --recipe.")


def recipe_of(run: Path) -> Recipe:
    """The recipe in the folder of a finished training run."""
    if not all((run / name).is_file() for name in ("recipe.json", "model.zip")):
        raise FileNotFoundError(f"`run` must be a folder with a finished training run, got '{run}'. Train one first.")
    return load_recipe(run / "recipe.json")


def load_learned(run: Path, env: KasminaVectorEnv) -> Policy:
    """The controller in the folder of a finished training run, for an environment."""
    algorithm = ALGORITHMS.get(recipe_of(run).algorithm)
    return make_player(algorithm, algorithm.model.load(run / "model.zip", device="cpu"), env)


class Checkpoints(BaseCallback):
    """After as many steps as all rows take for an episode: report; after five times as many: save.

    Args:
        out: Folder of the run.
        every: Steps between reports.
        report: Called with steps done and the mean committed score of the latest episodes.
    """

    def __init__(self, out: Path, every: int, report: Callable[[int, float], None]) -> None:
        super().__init__()
        self._out, self._every, self._report, self._num_reports = out, every, report, 0

    def _on_training_start(self) -> None:
        self._num_reports = self.num_timesteps // self._every

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
    recipe: Recipe,
    out: Path,
    report: Callable[[int, float], None] = lambda steps, score: None,
    resume: bool = False,
    num_workers: int = 1,
) -> BaseAlgorithm:
    """Train a controller; the folder then holds recipe.json, model.zip, checkpoint.zip, and logs (TensorBoard, CSV).

    What a resumed run goes on with: networks, optimisers, counters and the schedules that depend on them. Its episodes
    are fresh ones. An off-policy algorithm's buffer of transitions is not kept: as at first, it is filled by random
    actions for ``learning_starts`` steps, before learning goes on.

    Args:
        recipe: Settings.
        out: Folder of the run, made here.
        report: Called now and then with steps done and mean committed score.
        resume: Go on from the folder's checkpoint; its recipe must be the same but for `total_steps`.
        num_workers: Processes over which the networks are spread.
    """
    algorithm = ALGORITHMS.get(recipe.algorithm)
    if recipe.group > 1 and algorithm.is_off_policy:
        raise ValueError(
            f"`group` must be 1 for {recipe.algorithm}, whose buffer would keep what others earned, got {recipe.group}."
        )
    for name in ("nearness", "shared_parts"):
        if getattr(recipe, name) and algorithm.model is not MaskablePPO:
            raise ValueError(f"`{name}` must be False for {recipe.algorithm}, got True. Use maskable_ppo.")
    if resume:
        _check_resumable(recipe, out)
    settings = {"action_space": algorithm.action_space, "num_workers": num_workers, **recipe.settings}
    env = make_env(recipe.preset, recipe.num_envs, **settings)
    venv: VecEnv = VecMonitor(KasminaVecEnv(env), info_keywords=MONITORED)
    if recipe.group > 1:
        venv = Paired(venv, recipe.group)
    horizon = env.core.config.horizon
    if resume:
        model = algorithm.model.load(out / "checkpoint.zip", env=venv, device="cpu")
        if isinstance(model, OffPolicyAlgorithm):
            fresh = inspect.signature(algorithm.model).parameters["learning_starts"].default
            model.learning_starts = model.num_timesteps + recipe.hyperparameters.get("learning_starts", fresh)
    else:
        ways = {"nearness": recipe.nearness, "shared_parts": recipe.shared_parts}
        hyperparameters = recipe.hyperparameters
        model = make_model(algorithm, venv, names_of(env), recipe.net, recipe.seed, hyperparameters, **ways)
    # not the episodes of the start again, nor those of a run with the next seed: row i of a population has seed + i
    venv.seed(fresh_seed(recipe, model.num_timesteps))
    out.mkdir(parents=True, exist_ok=True)
    (out / "recipe.json").write_text(json.dumps(_plain(recipe), indent=2) + "\n")
    if not resume:
        save_model(model, out / "checkpoint.zip")  # however early a run is stopped, it can go on
    # a resumed run logs beside what it goes on from
    model.set_logger(configure(str(out / "logs" / f"{model.num_timesteps:09d}"), ["tensorboard", "csv"]))
    callbacks: list[BaseCallback] = [Checkpoints(out, horizon * recipe.num_envs, report)]
    entropy = annealed("ent_coef", recipe.hyperparameters.get("ent_coef"))
    if callable(entropy):
        callbacks.append(FallingEntropy(entropy, recipe.total_steps))
    try:
        if model.num_timesteps < recipe.total_steps:
            remaining = recipe.total_steps - model.num_timesteps
            model.learn(remaining, callback=callbacks, reset_num_timesteps=False)
        save_model(model, out / "checkpoint.zip")
        save_model(model, out / "model.zip")
    finally:
        model.logger.close()
        venv.close()
    return model


def fresh_seed(recipe: Recipe, num_steps: int) -> int:
    """A seed for the environments of a run that begins or goes on after so many steps; below those of evaluation."""
    return int(np.random.default_rng([recipe.seed, num_steps]).integers(MAX_SEED - recipe.num_envs))


def _check_resumable(recipe: Recipe, out: Path) -> None:
    """Raise one clear sentence, and write nothing, where a folder holds no checkpoint of this recipe."""
    if not (out / "checkpoint.zip").is_file():
        raise FileNotFoundError(f"`out` must hold a checkpoint to resume from, got {out}. Train without --resume.")
    found = _plain(load_recipe(out / "recipe.json"))
    for key, value in _plain(recipe).items():
        if key != "total_steps" and found[key] != value:
            raise ValueError(f"`{key}` must be {found[key]!r} as in {out}, got {value!r}. Resume with the same recipe.")


def _plain(recipe: Recipe) -> dict[str, Any]:
    """As it is read back from JSON."""
    values: dict[str, Any] = json.loads(json.dumps(dataclasses.asdict(recipe)))
    return values
