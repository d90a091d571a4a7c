"""Settings of a training run, read from JSON and kept beside what was trained."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sb3_contrib import MaskablePPO

from kasmina_env.controllers.policy import MAX_SEED
from kasmina_env.learning.algorithms import ALGORITHMS
from kasmina_env.lifecycle.state import Op
from kasmina_env.settings.config import SETTINGS, check_nested, is_number
from kasmina_env.settings.documents import read_document
from kasmina_env.settings.paths import config_path, slug
from kasmina_env.settings.registry import unknown_name_message

TRAINING = "training.json"  # in the folder of a run
MOST_ROWS, MOST_STEPS, WIDEST = 2**16, 10**12, 2**16


@dataclass(frozen=True)
class TrainingConfig:
    """Settings of one training run.

    Attributes:
        preset: Registered id.
        algorithm: Name in `kasmina_env.learning.algorithms.ALGORITHMS`.
        total_steps: Environment steps, all rows together.
        num_envs: Rows of the population.
        group: Rows next to each other that play the same episodes and are measured against each other
            (`kasmina_env.learning.group_baseline`); 1: none are.
        group_each_step: Whether they are measured against each other in every step, and not in the last one for all.
        net: Sizes of the networks' hidden layers.
        nearness: Whether `ent_coef` weighs nearness to a policy to which all operations weigh the same, in place of
            entropy; for MaskablePPO only, as is what follows (`kasmina_env.learning.maskable_policy`).
        prior: Weights of operations, by name, in the first policy and in the one to be near to; 1 where left out. Where
            episodes are long, a policy that grows at once never sees what comes of waiting for a reason.
        imitate: Whether the first policy plays as the id's reactive rules do (`kasmina_env.learning.imitation`); for
            MaskablePPO only.
        hindsight: Whether it waits in episodes in which waiting returned more than the rules
            (`kasmina_env.learning.imitation.in_hindsight`); needs `imitate`.
        standardized: Whether the policy sees signals less their mean, over their standard deviation, both as they are
            in what it imitates (`kasmina_env.learning.maskable_policy.Standardized`); needs `imitate`.
        shared_parts: Whether actions with the same slot, blueprint and so on learn from each other.
        seed: Seed of the controller and of the environments.
        settings: Fields of `kasmina_env.settings.config.EnvConfig` that differ from the preset.
        hyperparameters: Keyword arguments of the algorithm's class in stable-baselines3. Episodes are finite and
            their return is not discounted, hence gamma 1 in most files that come with this.
    """

    preset: str = "Kasmina/Digits-v0"
    algorithm: str = "maskable_ppo"
    total_steps: int = 60_000
    num_envs: int = 64
    group: int = 1
    group_each_step: bool = False
    net: tuple[int, ...] = (64, 64)
    nearness: bool = False
    shared_parts: bool = False
    prior: Mapping[str, float] = field(default_factory=dict)
    imitate: bool = False
    hindsight: bool = False
    standardized: bool = False
    seed: int = 0
    settings: Mapping[str, Any] = field(default_factory=dict)
    hyperparameters: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name, most in {"total_steps": MOST_STEPS, "num_envs": MOST_ROWS, "group": MOST_ROWS}.items():
            if getattr(self, name) < 1:
                raise ValueError(f"`{name}` must be at least 1, got {getattr(self, name)}. Train for some steps.")
            if getattr(self, name) > most:
                raise ValueError(f"`{name}` must be at most {most}, got {getattr(self, name)}. Lower it.")
        if not 0 <= self.seed <= MAX_SEED - self.num_envs:
            raise ValueError(
                f"`seed` must be from 0 to {MAX_SEED - self.num_envs}, got {self.seed}. Larger ones are for evaluation."
            )
        if not self.net or min(self.net) < 1:
            raise ValueError(f"`net` must be sizes of at least 1, got {list(self.net)}. Name one for each layer.")
        if max(self.net) > WIDEST:
            raise ValueError(f"`net` must be sizes of at most {WIDEST}, got {list(self.net)}. Lower them.")
        for name in self.settings:
            if name not in SETTINGS:
                raise ValueError(unknown_name_message("settings", name, SETTINGS))
        for name, weight in self.prior.items():
            if name not in Op.__members__:
                raise ValueError(unknown_name_message("prior", name, Op.__members__))
            if not is_number(weight) or weight <= 0:
                raise ValueError(f"`prior` must be weights above 0, got {weight!r} for {name}. Choose a small one.")
        algorithm = ALGORITHMS.get(self.algorithm)
        if self.prior and (algorithm.is_off_policy or algorithm.action_space != "flat"):
            raise ValueError(
                f"`prior` must be empty for {self.algorithm}, whose first policy has no weights of operations, got "
                f"{dict(self.prior)}. Leave it out."
            )
        if self.group > 1 and algorithm.is_off_policy:
            raise ValueError(
                f"`group` must be 1 for {self.algorithm}, whose buffer would keep what others earned, got {self.group}."
            )
        for name in ("hindsight", "standardized"):
            if getattr(self, name) and not self.imitate:
                raise ValueError(f"`{name}` must be False without `imitate`, got True. Set `imitate` too.")
        for name in ("nearness", "shared_parts", "imitate"):
            if getattr(self, name) and algorithm.model is not MaskablePPO:
                raise ValueError(f"`{name}` must be False for {self.algorithm}, got True. Use maskable_ppo.")


def load_training_config(path: Path, **overrides: Any) -> TrainingConfig:
    """Read settings from JSON; an unknown key, whose nearest is named, or a value of another kind raises."""
    return training_config_of({**read_document(path), **overrides})


def training_config_of(values: Mapping[str, Any]) -> TrainingConfig:
    """Settings from plain JSON values; see `load_training_config`."""
    given: dict[str, Any] = {key: tuple(v) if isinstance(v, list) else v for key, v in values.items()}
    check_nested("training", TrainingConfig, given)
    return TrainingConfig(**given)


def training_config_path(preset: str, algorithm: str) -> Path:
    """The settings that come for an algorithm: those for the id if there are any, otherwise those for all ids."""
    ALGORITHMS.get(algorithm)
    try:
        return config_path(f"{slug(preset)}.{algorithm}.json", "")
    except FileNotFoundError:
        return config_path(f"{algorithm}.json", "Give one with --config.")


def plain(config: TrainingConfig) -> dict[str, Any]:
    """As they are read back from JSON."""
    values: dict[str, Any] = json.loads(json.dumps(dataclasses.asdict(config)))
    return values
