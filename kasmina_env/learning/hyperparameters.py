"""Hyperparameters of the algorithms of stable-baselines3: names, ranges, and rates that fall over a run."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.utils import LinearSchedule

from kasmina_env.settings.config import Rule, is_int, is_number
from kasmina_env.settings.registry import unknown_name_message

# Arguments of a model that are no hyperparameters: they are settled here, or are for continuous actions.
OWN = (
    "policy",
    "env",
    "seed",
    "device",
    "verbose",
    "tensorboard_log",
    "use_sde",
    "sde_sample_freq",
    "_init_setup_model",
)
LINEAR = "lin_"  # before a number: falls to 0 over the run, as in the files of rl-zoo3
FALLING = ("learning_rate", "clip_range", "clip_range_vf", "ent_coef")  # those that may fall
MOST = 10**9  # no machine holds more steps or transitions


def _number(holds: Callable[[float], bool], words: str) -> Rule:
    return Rule(lambda value: is_number(value) and holds(value), f"be a number {words}")


def _or_none(rule: Rule) -> Rule:
    return Rule(lambda value: value is None or rule.holds(value), f"{rule.words}, or None")


_COUNT = Rule(lambda value: is_int(value) and 1 <= value <= MOST, f"be an integer from 1 to {MOST}")
_SHARE = _number(lambda value: 0 <= value <= 1, "in [0, 1]")
_WEIGHT = _number(lambda value: value >= 0, "of at least 0")
_POSITIVE = _number(lambda value: value > 0, "above 0")
_FLAG = Rule(lambda value: isinstance(value, bool), "be True or False")

# A name that is not here is left to the model's class.
RULES: dict[str, Rule] = {
    **dict.fromkeys(("n_steps", "batch_size", "n_epochs", "buffer_size", "train_freq"), _COUNT),
    **dict.fromkeys(("target_update_interval", "stats_window_size"), _COUNT),
    **dict.fromkeys(("gamma", "gae_lambda", "tau", "exploration_initial_eps", "exploration_final_eps"), _SHARE),
    **dict.fromkeys(("learning_rate", "ent_coef", "vf_coef"), _WEIGHT),
    **dict.fromkeys(("normalize_advantage", "use_rms_prop", "optimize_memory_usage"), _FLAG),
    **dict.fromkeys(("clip_range_vf", "target_kl", "max_grad_norm"), _or_none(_POSITIVE)),
    "clip_range": _POSITIVE,
    "exploration_fraction": _number(lambda value: 0 < value <= 1, "in (0, 1]"),
    "learning_starts": Rule(lambda value: is_int(value) and value >= 0, "be an integer of at least 0"),
    "gradient_steps": Rule(lambda value: is_int(value) and value >= -1, "be an integer of at least 0, or -1"),
    "policy_kwargs": Rule(lambda value: isinstance(value, Mapping), "be a mapping of keyword arguments"),
}


def check_hyperparameters(model: type[BaseAlgorithm], values: Mapping[str, Any]) -> None:
    """Raise one clear sentence for a name that the model's class does not know, or a value out of range."""
    known = tuple(name for name in inspect.signature(model).parameters if name not in OWN)
    for name, value in values.items():
        if name not in known:
            raise ValueError(unknown_name_message("hyperparameters", name, known))
        rate = annealed(name, value)
        if name in RULES and not RULES[name].holds(rate(1.0) if callable(rate) else rate):
            raise ValueError(f"`{name}` must {RULES[name].words}, got {value!r}. Change it in `hyperparameters`.")


def annealed(name: str, value: Any) -> Any:
    """A hyperparameter; a rate that reads "lin_0.001" is a function of what remains of the run, from 1 to 0."""
    if name not in FALLING or not isinstance(value, str) or not value.startswith(LINEAR):
        return value
    try:
        return LinearSchedule(float(value.removeprefix(LINEAR)), 0.0, 1.0)
    except ValueError:
        raise ValueError(f"`{name}` must be a number behind {LINEAR!r}, got {value!r}. Write {LINEAR}0.001.") from None
