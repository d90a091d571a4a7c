"""The settings of an environment: one frozen, flat, validated table of plain values."""

from __future__ import annotations

import dataclasses
import inspect
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any

from kasmina_env.lifecycle.alpha import Curve
from kasmina_env.lifecycle.transitions import LifecycleRules
from kasmina_env.settings.registry import unknown_name_message


class Operator(IntEnum):
    """Blend operators. The value is the code used in states, actions and observations."""

    ADD = 0
    MULTIPLY = 1
    GATE = 2


@dataclass(frozen=True)
class EnvConfig:
    """Everything that defines the problem; plain JSON values only.

    Attributes:
        task: Registered task.
        task_settings: Its keyword settings.
        host: Registered host.
        host_settings: Its keyword settings.
        initial_weights: Path of a safetensors file with weights of the host, from which every episode starts, such as
            those of a network in service; "" draws them at random.
        horizon: Steps of an episode.
        batches_per_step: Minibatches each network trains on in a step.
        batch_size: Samples of a minibatch.
        augment: How pictures of a minibatch are changed at random: a name in `AUGMENTATIONS`.
        optimizer: "adam" or "sgd".
        learning_rate: Of the networks.
        decay: How learning rates go on over the episode: "none", or "linear", to zero behind the last step.
        host_factor: What the learning rate is multiplied by for hosts: a mature one has little of it left.
        birth_gain: What the constants that keep newborn seeds near identity are multiplied by.
        clip_norm: Norm to which the gradients of a host, and of each seed, are clipped; 0 is off.
        blueprints: Menu of GERMINATE.
        operators: Menu of GERMINATE: names of blend operators.
        tempos: Menu of ramp lengths in steps.
        prune_tempos: Menu of PRUNE; 0 removes at once.
        targets: Menu of SET_ALPHA_TARGET; empty leaves the operation out.
        curves: Menu of ramp shapes.
        min_training_steps, min_prune_age, embargo_steps, min_contribution, instant: See `LifecycleRules`.
        instances: Name of the family in configs/ whose instances episodes are about, or a JSON file; "" for a single
            problem. What an instance settles takes the place of these settings.
        label_noise: Share of the labels to learn from that are wrong.
        pixel_noise: Standard deviation of the noise on inputs.
        warmup_batches: Minibatches a fresh host is trained on before its episode, which makes it a mature one; without
            the label and pixel noise of its episode, and on the task's own data for that, where it has some.
        warmup_learning_rate: In these.
        objective: What the score is of: "final", the network kept, or "mean", the mean over the episode of the network
            in service.
        param_price: Score per doubling of the network by fossilized parameters.
        rent_price: Reward per host's worth of extra compute over a whole episode.
        operation_price: Reward per germination.
        reward: Registered reward.
        watch_samples: Samples of inner_valid measured every step; what the controller sees.
        score_samples: Samples of outer_valid measured every step; the first and the last score use all of them.
        success_score: Committed score from which an episode counts as a success.
    """

    task: str = "digits"
    task_settings: Mapping[str, Any] = field(default_factory=dict)
    host: str = "cnn"
    host_settings: Mapping[str, Any] = field(default_factory=dict)
    initial_weights: str = ""
    horizon: int = 30
    batches_per_step: int = 4
    batch_size: int = 32
    augment: str = "none"
    optimizer: str = "adam"
    learning_rate: float = 0.02
    decay: str = "none"
    host_factor: float = 1.0
    birth_gain: float = 1.0
    clip_norm: float = 1.0
    blueprints: tuple[str, ...] = ()
    operators: tuple[str, ...] = ("ADD", "MULTIPLY", "GATE")
    tempos: tuple[int, ...] = (3, 5, 8)
    prune_tempos: tuple[int, ...] = (0, 3)
    targets: tuple[float, ...] = (0.5, 1.0)
    curves: tuple[str, ...] = ("LINEAR",)
    min_training_steps: int = 2
    min_prune_age: int = 2
    embargo_steps: int = 3
    min_contribution: float | None = None
    instant: bool = False
    instances: str = ""
    label_noise: float = 0.0
    pixel_noise: float = 0.0
    warmup_batches: int = 0
    warmup_learning_rate: float = 0.02
    objective: str = "final"
    param_price: float = 0.02
    rent_price: float = 0.002
    operation_price: float = 0.03
    reward: str = "score"
    watch_samples: int = 100
    score_samples: int = 100
    success_score: float = 0.5

    def __post_init__(self) -> None:
        for name in RULES:
            check_setting(name, getattr(self, name), "Change it.")

    @property
    def rules(self) -> LifecycleRules:
        """The lifecycle's part of the settings."""
        names = [f.name for f in dataclasses.fields(LifecycleRules)]
        return LifecycleRules(**{name: getattr(self, name) for name in names})


@dataclass(frozen=True)
class Rule:
    """What a value must be, as a check and in words."""

    holds: Callable[[Any], bool]
    words: str


def is_int(value: object) -> bool:
    """Whether it is an integer, which True and False are not."""
    return isinstance(value, int) and not isinstance(value, bool)


def is_number(value: object) -> bool:
    """Whether it is a finite number, which True and False are not."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _at_least(minimum: int) -> Rule:
    return Rule(lambda value: is_int(value) and value >= minimum, f"be an integer of at least {minimum}")


def _number(is_inside: Callable[[float], bool], words: str) -> Rule:
    return Rule(lambda value: is_number(value) and is_inside(value), f"be a number {words}")


def _menu(is_entry: Callable[[Any], bool], words: str, can_be_empty: bool = False) -> Rule:
    def holds(value: object) -> bool:
        if not isinstance(value, tuple) or not all(is_entry(v) for v in value):
            return False
        return (can_be_empty or len(value) > 0) and len(set(value)) == len(value)

    return Rule(holds, f"be a {'' if can_be_empty else 'non-empty '}menu of different {words}")


def _tuple_of(is_entry: Callable[[Any], bool], words: str) -> Rule:
    return Rule(lambda value: isinstance(value, tuple) and all(map(is_entry, value)), f"be a tuple of {words}")


DECAYS = ("none", "linear")
OBJECTIVES = ("final", "mean")
AUGMENTATIONS = ("none", "shift", "shift_flip")  # by up to an eighth of the picture; and mirrored every second time
OPERATOR_NAMES = tuple(Operator.__members__)
CURVE_NAMES = tuple(Curve.__members__)
_NAME = Rule(lambda value: isinstance(value, str) and value != "", "be a registered name")
_SETTINGS = Rule(lambda value: isinstance(value, Mapping), "be a mapping of keyword settings")
_PRICE = _number(lambda value: value >= 0, "of at least 0")
_FLAG = Rule(lambda value: isinstance(value, bool), "be True or False")

RULES: dict[str, Rule] = {
    "task": _NAME,
    "task_settings": _SETTINGS,
    "host": _NAME,
    "host_settings": _SETTINGS,
    "initial_weights": Rule(lambda value: isinstance(value, str), "be the path of a file, or ''"),
    "horizon": _at_least(2),
    "batches_per_step": _at_least(1),
    "batch_size": _at_least(1),
    "augment": Rule(lambda value: isinstance(value, str) and value in AUGMENTATIONS, f"be one of {AUGMENTATIONS}"),
    "optimizer": Rule(lambda value: value in ("adam", "sgd"), "be 'adam' or 'sgd'"),
    "learning_rate": _number(lambda value: value > 0, "above 0"),
    "decay": Rule(lambda value: value in DECAYS, f"be one of {DECAYS}"),
    "host_factor": _PRICE,
    "birth_gain": _PRICE,
    "clip_norm": _PRICE,
    "blueprints": _menu(lambda value: isinstance(value, str), "blueprint names"),
    "operators": _menu(lambda value: value in OPERATOR_NAMES, f"names in {OPERATOR_NAMES}"),
    "tempos": _menu(lambda value: is_int(value) and value >= 1, "integers of at least 1"),
    "prune_tempos": _menu(lambda value: is_int(value) and value >= 0, "integers of at least 0"),
    "targets": _menu(lambda v: is_number(v) and 0 < v <= 1, "numbers in (0, 1]", True),
    "curves": _menu(lambda value: value in CURVE_NAMES, f"names in {CURVE_NAMES}"),
    "min_training_steps": _at_least(0),
    "min_prune_age": _at_least(0),
    "embargo_steps": _at_least(0),
    "min_contribution": Rule(lambda value: value is None or is_number(value), "be a number, or None for no minimum"),
    "instant": _FLAG,
    "instances": Rule(lambda value: isinstance(value, str), "be the name of a family or a file, or ''"),
    "label_noise": _number(lambda value: 0 <= value <= 1, "in [0, 1]"),
    "pixel_noise": _PRICE,
    "warmup_batches": _at_least(0),
    "warmup_learning_rate": _number(lambda value: value > 0, "above 0"),
    "objective": Rule(lambda value: value in OBJECTIVES, f"be one of {OBJECTIVES}"),
    "param_price": _PRICE,
    "rent_price": _PRICE,
    "operation_price": _PRICE,
    "reward": _NAME,
    "watch_samples": _at_least(1),
    "score_samples": _at_least(1),
    "success_score": Rule(is_number, "be a finite number"),
}

# What the settings of hosts and tasks must be, by their annotations; one that is not here is left to who registered it.
KINDS: dict[str, Rule] = {
    "None": Rule(lambda value: value is None, "be None"),
    "bool": _FLAG,
    "int": Rule(is_int, "be an integer"),
    "float": Rule(is_number, "be a finite number"),
    "str": Rule(lambda value: isinstance(value, str), "be a string"),
    "Mapping[str, Any]": _SETTINGS,
    "tuple[int, ...]": _tuple_of(is_int, "integers"),
    "tuple[float, ...]": _tuple_of(is_number, "finite numbers"),
    "tuple[str, ...]": _tuple_of(lambda value: isinstance(value, str), "strings"),
}


def check_setting(name: str, value: object, remedy: str) -> None:
    """Raise a ``ValueError`` that ends in the remedy if the value of a setting breaks its rule."""
    rule = RULES[name]
    if not rule.holds(value):
        raise ValueError(f"`{name}` must {rule.words}, got {value!r}. {remedy}")


def check_nested(setting: str, make: Callable[..., object], values: Mapping[str, Any]) -> None:
    """Raise a ``ValueError`` if keyword settings have other names than the parameters of `make`, or are of other kinds.

    Args:
        setting: Where they stand, for the message: "host_settings", "task_settings", "instances" or "training".
        make: What is registered. The annotations of its parameters say what they must be (see `KINDS`).
        values: The settings.
    """
    parameters = inspect.signature(make).parameters
    for name, value in values.items():
        if name not in parameters:
            raise ValueError(unknown_name_message(setting, name, tuple(parameters) or ("(no settings)",)))
        kinds = _annotation(parameters[name]).split(" | ")
        rules = [KINDS[kind] for kind in kinds if kind in KINDS]
        if len(rules) == len(kinds) and not any(rule.holds(value) for rule in rules):
            words = " or ".join(rule.words for rule in rules)
            raise ValueError(f"`{name}` must {words}, got {value!r}. Change it in `{setting}`.")


def _annotation(parameter: inspect.Parameter) -> str:
    """As it is written in the source."""
    written = parameter.annotation
    return written if isinstance(written, str) else inspect.formatannotation(written)


def check_at_least_one(values: Mapping[str, float]) -> None:
    """Raise a ``ValueError`` if one of these settings of a host or task is below 1."""
    for name, value in values.items():
        if value < 1:
            raise ValueError(f"`{name}` must be at least 1, got {value}. Use a positive integer.")


def make_config(base: Mapping[str, Any], overrides: Mapping[str, Any]) -> EnvConfig:
    """Settings of a preset with some of them overridden.

    Lists become tuples, so settings may come from JSON. Nested settings are merged key by key; those of a host or task
    that is replaced by another are dropped.

    Raises:
        ValueError: If a key is unknown (the message names the nearest one) or a value breaks its rule.
    """
    replaced = {name for name in ("host", "task") if overrides.get(name, base.get(name)) != base.get(name)}
    merged = {key: value for key, value in base.items() if key.removesuffix("_settings") not in replaced}
    for key, value in overrides.items():
        if key not in RULES:
            raise ValueError(unknown_name_message("setting", key, tuple(RULES)))
        is_nested = isinstance(merged.get(key), Mapping) and isinstance(value, Mapping)
        merged[key] = {**merged[key], **value} if is_nested else value
    return EnvConfig(**{key: freeze(value) for key, value in merged.items()})


def freeze(value: Any) -> Any:
    """JSON values with tuples in place of lists."""
    if isinstance(value, list | tuple):
        return tuple(freeze(entry) for entry in value)
    if isinstance(value, Mapping):
        return {key: freeze(entry) for key, entry in value.items()}
    return value
