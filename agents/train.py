"""Learning a controller with MaskablePPO on the native vector environment."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from sb3_contrib import MaskablePPO
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.logger import configure
from stable_baselines3.common.vec_env import VecMonitor

from agents.policy import BoolArray, Float32Array, IntArray, make_env
from kasmina_env.registry import unknown_name_message
from kasmina_env.sb3 import KasminaVecEnv

MONITORED = ("committed_score", "test_accuracy", "num_fossilized", "compute", "is_success")


@dataclass(frozen=True)
class Recipe:
    """Settings of one training run. Episodes are finite and their return is not discounted, hence gamma 1.

    Attributes:
        preset: Registered id.
        total_steps: Environment steps, all rows together.
        num_envs: Rows of the population.
        batch_size, num_epochs, learning_rate, gamma, gae_lambda, entropy, clip_range: Of PPO (Schulman et al. 2017).
        net: Hidden layers of policy and value network, tanh.
        seed: Of the controller and of the environments.
        settings: Fields of `kasmina_env.config.EnvConfig` that differ from the preset.
    """

    preset: str = "Kasmina/Digits-v0"
    total_steps: int = 60_000
    num_envs: int = 64
    batch_size: int = 480
    num_epochs: int = 8
    learning_rate: float = 1e-3
    gamma: float = 1.0
    gae_lambda: float = 0.95
    entropy: float = 0.01
    clip_range: float = 0.2
    net: tuple[int, ...] = (64, 64)
    seed: int = 0
    settings: Mapping[str, Any] = field(default_factory=dict)


def load_recipe(path: Path, **overrides: Any) -> Recipe:
    """Read a recipe from JSON; an unknown key raises and names the nearest known one."""
    known = tuple(f.name for f in dataclasses.fields(Recipe))
    values = {**json.loads(path.read_text()), **overrides}
    for key in values:
        if key not in known:
            raise ValueError(unknown_name_message("recipe", key, known))
    values["net"] = tuple(values.get("net", (64, 64)))
    return Recipe(**values)


class Learned:
    """A trained controller, deterministic.

    Args:
        model: Trained with `train`.
    """

    def __init__(self, model: MaskablePPO) -> None:
        self._model = model

    @classmethod
    def load(cls, run: Path) -> Learned:
        """From the folder a training run wrote."""
        path = run / "model.zip"
        if not path.is_file():
            raise FileNotFoundError(f"`run` must be a folder with a finished training run, got {run}. Train one first.")
        return cls(MaskablePPO.load(path, device="cpu"))

    def act(self, observation: Float32Array, mask: BoolArray) -> IntArray:
        actions, _ = self._model.predict(observation, action_masks=mask, deterministic=True)
        return np.asarray(actions, dtype=np.int64)


class Checkpoints(BaseCallback):
    """After every rollout: report, and now and then save.

    Args:
        out: Folder of the run.
        every: Rollouts between checkpoints.
        report: Called with steps done and the mean committed score of the latest episodes.
    """

    def __init__(self, out: Path, every: int, report: Callable[[int, float], None]) -> None:
        super().__init__()
        self._out, self._every, self._report, self._rollouts = out, every, report, 0

    def _on_step(self) -> bool:
        return True

    def _on_rollout_end(self) -> None:
        episodes = list(self.model.ep_info_buffer or ())
        for key in MONITORED:
            if episodes:
                self.logger.record(f"episode/{key}", float(np.mean([e[key] for e in episodes])))
        score = float(np.mean([e["committed_score"] for e in episodes])) if episodes else float("nan")
        self._report(self.num_timesteps, score)
        self._rollouts += 1
        if self._rollouts % self._every == 0:
            save_model(self.model, self._out / "checkpoint.zip")


def save_model(model: Any, path: Path) -> None:
    """Write a model whole or not at all: to a temporary file, then renamed."""
    temporary = path.with_suffix(".tmp.zip")
    model.save(temporary)
    with temporary.open("rb") as file:
        os.fsync(file.fileno())
    temporary.replace(path)


def train(
    recipe: Recipe, out: Path, report: Callable[[int, float], None] = lambda steps, score: None, resume: bool = False
) -> MaskablePPO:
    """Train a controller; the folder then holds recipe.json, model.zip, checkpoint.zip, and logs (TensorBoard, CSV).

    Args:
        recipe: Settings.
        out: Folder of the run, made here.
        report: Called after every rollout with steps done and mean committed score.
        resume: Go on from the folder's checkpoint; its recipe must be the same but for `total_steps`.
    """
    if resume:
        _check_resumable(recipe, out)
    out.mkdir(parents=True, exist_ok=True)
    (out / "recipe.json").write_text(json.dumps(dataclasses.asdict(recipe), indent=2) + "\n")
    env = make_env(recipe.preset, recipe.num_envs, **recipe.settings)
    venv = VecMonitor(KasminaVecEnv(env), info_keywords=MONITORED)
    if resume:
        model = MaskablePPO.load(out / "checkpoint.zip", env=venv, device="cpu")
        venv.seed(recipe.seed + model.num_timesteps)  # fresh episodes, not those of the start again
    else:
        model = _new_model(recipe, venv, env.core.config.horizon)
    # a resumed run logs beside what it goes on from
    model.set_logger(configure(str(out / "logs" / f"{model.num_timesteps:09d}"), ["tensorboard", "csv"]))
    remaining = max(recipe.total_steps - model.num_timesteps, 0)
    if remaining:
        model.learn(remaining, callback=Checkpoints(out, 5, report), reset_num_timesteps=False)
    save_model(model, out / "checkpoint.zip")
    save_model(model, out / "model.zip")
    model.logger.close()
    venv.close()
    return model


def _check_resumable(recipe: Recipe, out: Path) -> None:
    """Raise one clear sentence, and write nothing, where a folder holds no checkpoint of this recipe."""
    if not (out / "checkpoint.zip").is_file():
        raise FileNotFoundError(f"`out` must hold a checkpoint to resume from, got {out}. Train without --resume.")
    wanted, found = json.loads(json.dumps(dataclasses.asdict(recipe))), json.loads((out / "recipe.json").read_text())
    for key, value in wanted.items():
        if key != "total_steps" and found.get(key) != value:
            raise ValueError(
                f"`{key}` must be {found.get(key)!r} as in {out}, got {value!r}. Resume with the same recipe."
            )


def _new_model(recipe: Recipe, venv: VecMonitor, horizon: int) -> MaskablePPO:
    return MaskablePPO(
        "MlpPolicy",
        venv,
        n_steps=horizon,  # a rollout is one episode of every row, so its end is where episodes end
        batch_size=recipe.batch_size,
        n_epochs=recipe.num_epochs,
        learning_rate=recipe.learning_rate,
        gamma=recipe.gamma,
        gae_lambda=recipe.gae_lambda,
        ent_coef=recipe.entropy,
        clip_range=recipe.clip_range,
        policy_kwargs={"net_arch": list(recipe.net)},
        seed=recipe.seed,
        device="cpu",
    )
