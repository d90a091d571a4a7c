"""Instances: the numbered members of a family of problems. Every episode is about one of them.

A family is a JSON file in configs/ with the instances themselves, so that everybody trains and tests on the same ones,
and with the ranges they were drawn from. A problem without a family has one instance, given by its settings.
"""

from __future__ import annotations

import reprlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from kasmina_env.lifecycle.arrays import FloatArray, IntArray
from kasmina_env.settings.config import EnvConfig, Rule, check_setting, freeze, is_int, is_number
from kasmina_env.settings.documents import read_document
from kasmina_env.settings.paths import config_path
from kasmina_env.settings.registry import unknown_name_message

SPLIT_NAMES = ("train", "test")
# Settings of which an instance may have its own value; its other keys are settings of its host.
NUMBERS = (
    *("learning_rate", "label_noise", "pixel_noise"),
    *("param_price", "rent_price", "upkeep_price", "operation_price"),
)
EVENTS = "events"  # setting of an instance: changes of its data while it is in service
Event = tuple[int, str, float]  # step from which on, name of a change, amount
_REMEDY = "Name a family that comes with the package, or a file."


def _is_list_of(kind: type, value: object) -> bool:
    return isinstance(value, list | tuple) and all(isinstance(entry, kind) for entry in value)


_SOME = Rule(lambda value: _is_list_of(Mapping, value) and len(value) > 0, "be a non-empty list of instances")
# Parts of a family's document besides "draw".
PARTS: dict[str, Rule] = {
    "train": _SOME,
    "test": _SOME,
    "visible": Rule(lambda value: _is_list_of(str, value), "be a list of names"),
}


@dataclass(frozen=True, eq=False)
class Instances:
    """I instances: first those to train controllers on, then those to test them on.

    Attributes:
        num_train: Number of instances to train on.
        numbers: Values ``[I]`` of each of `NUMBERS`.
        host_settings: Settings of each instance's host that differ from those of the problem.
        events: Changes of each instance's data, with the steps from which they are on.
        visible: Facts that a controller sees, by name, ``[I]`` each; the others it can only infer.
        ranges: Lowest and highest value of each visible fact.
    """

    num_train: int
    numbers: Mapping[str, FloatArray]
    host_settings: tuple[Mapping[str, Any], ...]
    events: tuple[tuple[Event, ...], ...]
    visible: Mapping[str, FloatArray]
    ranges: Mapping[str, tuple[float, float]]

    def __len__(self) -> int:
        return len(self.host_settings)

    def split(self, name: str) -> IntArray:
        """Numbers of the "train" or the "test" instances; a single instance is both."""
        if name not in SPLIT_NAMES:
            raise ValueError(unknown_name_message("split", name, SPLIT_NAMES))
        numbers = np.arange(len(self))
        if len(self) == 1:
            return numbers
        return numbers[: self.num_train] if name == "train" else numbers[self.num_train :]

    def scaled_facts(self) -> FloatArray:
        """Visible facts from 0 (the family's lowest) to 1 (its highest), ``[I, facts]``."""
        columns = [_scaled(values, *self.ranges[name]) for name, values in self.visible.items()]
        return np.stack(columns, axis=1) if columns else np.zeros((len(self), 0))


def _scaled(values: FloatArray, low: float, high: float) -> FloatArray:
    """Position between `low` and `high`, on a logarithmic scale if both are above 0."""
    if low > 0:
        values, low, high = np.log(values), np.log(low), np.log(high)
    return np.asarray((values - low) / (high - low if high > low else 1.0))


def make_instances(config: EnvConfig) -> Instances:
    """Instances of a problem: those of its family, or the single one that its settings describe."""
    if not config.instances:
        numbers = {name: np.array([float(getattr(config, name))]) for name in NUMBERS}
        return Instances(1, numbers, ({},), ((),), {}, {})
    path = Path(config.instances)
    if path.suffix != ".json":
        path = config_path(f"{config.instances}.instances.json", _REMEDY)
    if not path.is_file():
        raise FileNotFoundError(f"`instances` must name a file that exists, got '{path}'. {_REMEDY}")
    return read_family(read_document(path), config)


def read_family(document: Mapping[str, Any], config: EnvConfig) -> Instances:
    """Instances of a family's JSON document. Settings of the problem fill in what they leave out.

    Args:
        document: "draw" (see `draw_family`), "visible" (names), and "train" and "test" (lists of instances).
        config: Settings of the problem.

    Raises:
        ValueError: If a part is missing or of another kind, instances have different keys, or a value breaks the rule
            of its setting.
    """
    _check_parts(document, config.instances)
    entries: list[dict[str, Any]] = [*document["train"], *document["test"]]
    if any(set(entry) != set(entries[0]) for entry in entries):
        raise ValueError(f"`instances` must all have the same keys, unlike those of {config.instances!r}.")
    for i, entry in enumerate(entries):
        for name in (name for name in NUMBERS if name in entry):
            check_setting(name, entry[name], f"Correct instance {i} of {config.instances!r}.")
    numbers = {name: np.array([float(entry.get(name, getattr(config, name))) for entry in entries]) for name in NUMBERS}
    own = (*NUMBERS, EVENTS)
    settings = tuple({key: freeze(value) for key, value in entry.items() if key not in own} for entry in entries)
    events = tuple(_events(entry.get(EVENTS, ()), config, i) for i, entry in enumerate(entries))
    visible = {name: _facts(name, entries) for name in document["visible"]}
    ranges = {name: (float(values.min()), float(values.max())) for name, values in visible.items()}
    return Instances(len(document["train"]), numbers, settings, events, visible, ranges)


def _check_parts(document: Mapping[str, Any], family: str) -> None:
    """Raise a ``ValueError`` if a part of a document is missing or of another kind."""
    for name, rule in PARTS.items():
        if not rule.holds(document.get(name)):
            got = reprlib.repr(document.get(name))  # shortened
            raise ValueError(f"`{name}` must {rule.words}, got {got}. Correct it in {family!r}.")


def _events(found: object, config: EnvConfig, instance: int) -> tuple[Event, ...]:
    """The events of an instance before the horizon, in the order of their steps, each ``[step, change, amount]``."""
    if not isinstance(found, list | tuple):
        raise ValueError(f"`{EVENTS}` must be a list, got {found!r}. Correct instance {instance}.")
    last = 0
    for event in found:
        is_whole = isinstance(event, list | tuple) and len(event) == 3
        is_good = is_whole and is_int(event[0]) and isinstance(event[1], str) and is_number(event[2])
        if not is_good or not last < event[0]:
            raise ValueError(
                f"`{EVENTS}` must be [step, change, amount] at rising steps from 1 on, got {event!r}. Correct instance "
                f"{instance} of {config.instances!r}."
            )
        last = event[0]
    return tuple((int(step), str(name), float(amount)) for step, name, amount in found if step < config.horizon)


def _facts(name: str, entries: Sequence[Mapping[str, Any]]) -> FloatArray:
    """Values of a visible fact, ``[I]``."""
    if name not in entries[0]:
        raise ValueError(unknown_name_message("visible", name, tuple(entries[0]) or ("(nothing)",)))
    for entry in entries:
        if not isinstance(entry[name], bool) and not is_number(entry[name]):
            raise ValueError(f"`visible` must name numbers, got {name!r}, which is {entry[name]!r} in an instance.")
    return np.array([float(entry[name]) for entry in entries])


def draw_family(draw: Mapping[str, Mapping[str, Any]], size: int, seed: int) -> list[dict[str, Any]]:
    """Draw instances at random, numbers rounded to four digits.

    Args:
        draw: Range of each setting that differs, by name: ``{"one_of": [...]}``, of which every choice is taken equally
            often, ``{"uniform": [low, high]}``, ``{"log_uniform": [low, high]}`` or, for events, ``{"drift": {...}}``
            (see `_draw_events`).
        size: Number of instances.
        seed: Seed of the draw.
    """
    rng = np.random.default_rng(seed)
    columns = {name: _draw_column(rng, spec, size) for name, spec in draw.items()}
    return [{name: values[i] for name, values in columns.items()} for i in range(size)]


def _draw_column(rng: np.random.Generator, spec: Mapping[str, Any], size: int) -> Sequence[Any]:
    (kind, values), *others = spec.items()
    if others or kind not in ("one_of", "uniform", "log_uniform", "drift"):
        raise ValueError(
            "`draw` must be one of 'one_of', 'uniform', 'log_uniform' and 'drift' for each name, got "
            f"{dict(spec)}. Correct it."
        )
    if kind == "drift":
        return [_draw_events(rng, **values) for _ in range(size)]
    if kind == "one_of":
        return [values[i] for i in rng.permutation(np.arange(size) % len(values))]
    low, high = np.log(values) if kind == "log_uniform" else values
    drawn = rng.uniform(low, high, size)
    return [float(f"{value:.4g}") for value in (np.exp(drawn) if kind == "log_uniform" else drawn)]


def _draw_events(
    rng: np.random.Generator,
    changes: Sequence[Sequence[Any]],
    start: Sequence[int],
    length: Sequence[int],
    end: int,
    none: float,
    twice: float,
) -> list[list[Any]]:
    """Changes of the data of one instance, each ``[step, change, amount]``.

    Args:
        rng: Random stream of the draw.
        changes: Changes to choose from, each ``[name, amount, share that never ends]``.
        start: Earliest and latest step of the first.
        length: Shortest and longest time that one lasts, and that the data are as before between two, in steps.
        end: Step from which on nothing happens any more.
        none: Share of instances without any.
        twice: Share of instances in which, after the first has ended, there is a second.
    """
    if rng.random() < none:
        return []
    events: list[list[Any]] = []
    step = int(rng.integers(start[0], start[1] + 1))
    for _ in range(2 if rng.random() < twice else 1):
        name, amount, lasting = changes[int(rng.integers(len(changes)))]
        events.append([step, name, amount])
        if rng.random() < lasting:
            break
        step += int(rng.integers(length[0], length[1] + 1))
        events.append([step, "none", 0.0])
        step += int(rng.integers(length[0], length[1] + 1))
    return [event for event in events if event[0] < end]
