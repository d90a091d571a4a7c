"""Settings of an environment: one frozen, flat, validated table of plain values."""

from __future__ import annotations

import dataclasses
import inspect
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from functools import cached_property
from types import NoneType, UnionType
from typing import Any, Union, get_args, get_origin

from kasmina_env.lifecycle.alpha import Curve
from kasmina_env.lifecycle.state import MAX_STEPS, Thresholds
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
        task: Name of a registered task.
        task_settings: Keyword settings of the task.
        host: Name of a registered host.
        host_settings: Keyword settings of the host.
        initial_weights: Path of a safetensors file with weights of the host, from which every episode starts, such as
            those of a network in service; "" draws them at random.
        horizon: Steps of an episode.
        batches_per_step: Minibatches each network trains on in a step.
        batch_size: Samples of a minibatch.
        augment: Random change of the pictures in a minibatch: a name in `AUGMENTATIONS`.
        optimizer: "adam" or "sgd".
        learning_rate: Learning rate of seeds, and of hosts times `host_factor`.
        decay: Learning-rate schedule: "none", or "linear", which would reach zero one step after the last.
        host_factor: Multiplier on the learning rate of hosts; small for a mature one.
        birth_gain: Multiplier on the constant initial values that keep newborn seeds near identity.
        clip_norm: Largest norm of the gradients of a host, and of each seed; 0 clips nothing.
        blueprints: Menu of blueprints.
        operators: Menu of blend operators, by name.
        tempos: Menu of ramp lengths in steps, for GERMINATE and SET_ALPHA_TARGET.
        prune_tempos: Menu of ramp lengths in steps, for PRUNE; 0 removes at once.
        targets: Menu of alpha targets; an empty one leaves SET_ALPHA_TARGET out.
        curves: Menu of ramp shapes, by name.
        min_training_steps, min_prune_age, embargo_steps, min_contribution, instant: See `Thresholds`.
        instances: Family whose instances episodes are about: a name in configs/, or a JSON file; "" for a single
            problem. What an instance settles takes the place of these settings.
        label_noise: Share of wrong labels in the data to learn from.
        pixel_noise: Standard deviation of the noise on inputs.
        warmup_batches: Minibatches a fresh host is trained on before its episode, which makes it a mature one; without
            label and pixel noise, and on the task's own data for this, where it has some.
        warmup_learning_rate: Learning rate of that training.
        objective: "final" scores the network that is kept, "mean" the network in service, averaged over the episode.
        param_price: Score per doubling of the network by fossilized parameters.
        rent_price: Reward per host's worth of extra compute over a whole episode.
        upkeep_price: Reward per seed that is not fossilized over a whole episode: what can still be taken back is
            measured switched on and off.
        operation_price: Reward per germination.
        reward: Name of a registered reward.
        hidden: Groups of features that observations leave out, names in `SIGNALS`.
        watch_samples: Samples of inner_valid that are measured for the controller every step.
        score_samples: Samples of outer_valid that are scored every step; the first and the last score use all of them.
        success_score: Committed score from which an episode counts as a success.
        governor: Whether a network that diverges goes back to its last good state; see `kasmina_env.episode.governor`.
        divergence_loss: Loss of a network that answers like a guess, over the loss of a guess, from which it counts as
            diverged. A fresh host is at 1 to 1.2.
        divergence_rise: Factor by which the loss of a network must rise over its best recent one, and above that of a
            guess, to count as diverged.
        max_rollbacks: Rollbacks in an episode; one more ends it with a failure.
        rollback_factor: Multiplier on the learning rate of a network at each rollback; at 1 it goes on as before.
        rollback_price: Reward per rollback.
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
    targets: tuple[float, ...] = ()
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
    upkeep_price: float = 0.0
    operation_price: float = 0.03
    reward: str = "score"
    hidden: tuple[str, ...] = ()
    watch_samples: int = 100
    score_samples: int = 100
    success_score: float = 0.5
    governor: bool = False
    divergence_loss: float = 2.0
    divergence_rise: float = 3.0
    max_rollbacks: int = 3
    rollback_factor: float = 0.1
    rollback_price: float = 0.02

    def __post_init__(self) -> None:
        for name in RULES:
            check_setting(name, getattr(self, name), "Change it.")
        _check_lengths(self, self.thresholds)
        if self.batches_per_step * self.batch_size > MOST_SAMPLES:
            raise ValueError(
                f"`batch_size` times `batches_per_step` must be at most {MOST_SAMPLES}, got {self.batch_size} times "
                f"{self.batches_per_step}. Lower one of them."
            )

    @cached_property
    def thresholds(self) -> Thresholds:
        """The lifecycle's part of the settings, which checks itself."""
        names = [f.name for f in dataclasses.fields(Thresholds)]
        return Thresholds(**{name: getattr(self, name) for name in names})


SETTINGS = tuple(f.name for f in dataclasses.fields(EnvConfig))


# ── rules ───────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class Rule:
    """A requirement on a value, as a check and in words."""

    holds: Callable[[Any], bool]
    words: str


def is_int(value: object) -> bool:
    """True for integers, but not for True and False."""
    return isinstance(value, int) and not isinstance(value, bool)


def is_number(value: object) -> bool:
    """True for finite numbers, but not for True and False."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= sys.float_info.max


def _integer(low: int, high: int) -> Rule:
    return Rule(lambda value: is_int(value) and low <= value <= high, f"be an integer from {low} to {high}")


def _number(low: float, high: float) -> Rule:
    return Rule(lambda value: is_number(value) and low <= value <= high, f"be a number from {low:g} to {high:g}")


def _menu(is_entry: Callable[[Any], bool], words: str, can_be_empty: bool = False) -> Rule:
    def holds(value: object) -> bool:
        if not isinstance(value, tuple) or not all(is_entry(v) for v in value):
            return False
        return (can_be_empty or len(value) > 0) and len(set(value)) == len(value)

    return Rule(holds, f"be a {'' if can_be_empty else 'non-empty '}menu of different {words}")


def _one_of(names: tuple[str, ...]) -> Rule:
    return Rule(lambda value: isinstance(value, str) and value in names, f"be one of {names}")


DECAYS = ("none", "linear")
OBJECTIVES = ("final", "mean")
AUGMENTATIONS = ("none", "shift", "shift_flip")  # by up to an eighth of the picture; and mirrored every second time
SIGNALS = ("accuracy", "gradients", "contribution", "stage", "costs", "instance")  # groups of observed features
OPTIMIZERS = ("adam", "sgd")
OPERATOR_NAMES = tuple(Operator.__members__)
CURVE_NAMES = tuple(Curve.__members__)
_NAME = Rule(lambda value: isinstance(value, str) and value != "", "be a registered name")
_SETTINGS = Rule(lambda value: isinstance(value, Mapping), "be a mapping of keyword settings")
_FLAG = Rule(lambda value: isinstance(value, bool), "be True or False")
_LEARNING_RATE = _number(1e-8, 1e3)
_FACTOR = _number(0, 1e3)
_PRICE = _number(0, 1e3)
_SAMPLES = _integer(1, 10**9)
MOST_SAMPLES = 10**7  # that a network trains on in a step

# Of every setting but those of the lifecycle, which `Thresholds` checks.
RULES: dict[str, Rule] = {
    "task": _NAME,
    "task_settings": _SETTINGS,
    "host": _NAME,
    "host_settings": _SETTINGS,
    "initial_weights": Rule(lambda value: isinstance(value, str), "be the path of a file, or ''"),
    "horizon": _integer(2, MAX_STEPS),
    "batches_per_step": _integer(1, 10_000),
    "batch_size": _integer(1, 1_000_000),
    "augment": _one_of(AUGMENTATIONS),
    "optimizer": _one_of(OPTIMIZERS),
    "learning_rate": _LEARNING_RATE,
    "decay": _one_of(DECAYS),
    "host_factor": _FACTOR,
    "birth_gain": _FACTOR,
    "clip_norm": _number(0, 1e6),
    "blueprints": _menu(lambda value: isinstance(value, str), "blueprint names"),
    "operators": _menu(lambda value: value in OPERATOR_NAMES, f"names in {OPERATOR_NAMES}"),
    "tempos": _menu(lambda value: is_int(value) and value >= 1, "integers of at least 1"),
    "prune_tempos": _menu(lambda value: is_int(value) and value >= 0, "integers of at least 0"),
    "targets": _menu(lambda value: is_number(value) and 0.01 <= value <= 1, "numbers from 0.01 to 1", True),
    "curves": _menu(lambda value: value in CURVE_NAMES, f"names in {CURVE_NAMES}"),
    "instances": Rule(lambda value: isinstance(value, str), "be the name of a family or a file, or ''"),
    "label_noise": Rule(lambda value: is_number(value) and 0 <= value < 1, "be a number from 0 to below 1"),
    "pixel_noise": _FACTOR,
    "warmup_batches": _integer(0, 1_000_000),
    "warmup_learning_rate": _LEARNING_RATE,
    "objective": _one_of(OBJECTIVES),
    "param_price": _PRICE,
    "rent_price": _PRICE,
    "upkeep_price": _PRICE,
    "operation_price": _PRICE,
    "reward": _NAME,
    "hidden": _menu(lambda value: value in SIGNALS, f"names in {SIGNALS}", True),
    "watch_samples": _SAMPLES,
    "score_samples": _SAMPLES,
    "success_score": _number(-1e3, 1),
    "governor": _FLAG,
    "divergence_loss": _number(1.5, 1e3),
    "divergence_rise": _number(1.5, 1e3),
    "max_rollbacks": _integer(0, MAX_STEPS),
    "rollback_factor": _number(1e-3, 1),
    "rollback_price": _PRICE,
}


def check_setting(name: str, value: object, remedy: str) -> None:
    """Raise a ``ValueError`` that ends in the remedy if the value of a setting breaks its rule."""
    rule = RULES[name]
    if not rule.holds(value):
        raise ValueError(f"`{name}` must {rule.words}, got {value!r}. {remedy}")


def _check_lengths(config: EnvConfig, thresholds: Thresholds) -> None:
    """Raise a ``ValueError`` for a length in steps that no episode of this horizon can meet."""
    horizon = config.horizon
    longest = {"min_prune_age": horizon, "embargo_steps": horizon}
    if not thresholds.instant:
        longest["min_training_steps"] = horizon - 1
    for name, limit in longest.items():
        steps = getattr(thresholds, name)
        if steps > limit:
            raise ValueError(
                f"`{name}` must be at most {limit} in episodes of {horizon} steps, got {steps}. Lower it, or raise "
                "`horizon`."
            )
    for name in ("tempos", "prune_tempos"):
        slowest = max(getattr(config, name))
        if slowest > 10 * horizon:  # a ramp may be cut off by the end, but not be all but flat
            raise ValueError(
                f"`{name}` must be at most ten times the horizon of {horizon} steps, got {slowest}. Shorten the ramp."
            )


# ── settings of hosts and tasks ─────────────────────────────────────────────────────────────────

# What annotations ask for; one that is not here is left to whoever registered it.
KINDS: dict[type, Rule] = {
    NoneType: Rule(lambda value: value is None, "be None"),
    bool: _FLAG,
    int: Rule(is_int, "be an integer"),
    float: Rule(is_number, "be a finite number"),
    str: Rule(lambda value: isinstance(value, str), "be a string"),
}
_PLURALS: dict[type, str] = {int: "integers", float: "finite numbers", str: "strings"}


def kind_rule(kind: Any) -> Rule | None:
    """Rule of an annotation: one of `KINDS`, a tuple of them, a mapping, or a union of these; None for any other."""
    origin, args = get_origin(kind), get_args(kind)
    if origin in (Union, UnionType):
        rules = [kind_rule(arg) for arg in args]
        known = [rule for rule in rules if rule is not None]
        words = " or ".join(rule.words for rule in known)
        return Rule(lambda value: any(r.holds(value) for r in known), words) if len(known) == len(rules) else None
    if Mapping in (kind, origin):
        return _SETTINGS
    if origin is tuple and args[1:] == (...,) and args[0] in _PLURALS:
        entry = KINDS[args[0]]
        return Rule(
            lambda value: isinstance(value, tuple) and all(map(entry.holds, value)),
            f"be a tuple of {_PLURALS[args[0]]}",
        )
    return KINDS.get(kind) if isinstance(kind, type) else KINDS[NoneType] if kind is None else None


def check_nested(setting: str, make: Callable[..., object], values: Mapping[str, Any]) -> None:
    """Raise a ``ValueError`` if keyword settings have other names than the parameters of `make`, or are of other kinds.

    Args:
        setting: Name of the settings in the message, such as "host_settings".
        make: Class or function that is registered. Its annotations say of which kinds its settings are (see `KINDS`).
        values: The settings.
    """
    try:
        parameters = inspect.signature(make, eval_str=True).parameters
    except NameError:  # an annotation that only a type checker can look up
        parameters = inspect.signature(make).parameters
    for name, value in values.items():
        if name not in parameters:
            raise ValueError(unknown_name_message(setting, name, tuple(parameters) or ("(no settings)",)))
        rule = kind_rule(parameters[name].annotation)
        if rule is not None and not rule.holds(value):
            raise ValueError(f"`{name}` must {rule.words}, got {value!r}. Change it in `{setting}`.")


LARGEST_SIZE = 2**20  # of an axis of samples, features or logits


def check_sizes(values: Mapping[str, int], most: int = LARGEST_SIZE) -> None:
    """Raise a ``ValueError`` if one of these sizes in the settings of a host or task is not from 1 to `most`."""
    for name, value in values.items():
        if not 1 <= value <= most:
            raise ValueError(f"`{name}` must be from 1 to {most}, got {value}. {'Raise' if value < 1 else 'Lower'} it.")


# ── presets and overrides ───────────────────────────────────────────────────────────────────────


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
        if key not in SETTINGS:
            raise ValueError(unknown_name_message("setting", key, SETTINGS))
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
