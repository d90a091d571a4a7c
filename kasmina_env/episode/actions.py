"""Table of actions. Masks, names, the factored form and commands are computed from it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from functools import cached_property
from itertools import product
from typing import cast

import numpy as np

from kasmina_env.lifecycle.alpha import Curve
from kasmina_env.lifecycle.arrays import BoolArray, IntArray
from kasmina_env.lifecycle.legality import legal_commands
from kasmina_env.lifecycle.state import NONE, Commands, LifecycleState, Op, SeedMeasurements
from kasmina_env.settings.config import EnvConfig, Operator
from kasmina_env.settings.registry import did_you_mean

WAIT = 0  # the first action of every table
# Arguments of each operation, in the order in which names show them.
ARGUMENTS: dict[Op, tuple[str, ...]] = {
    Op.WAIT: (),
    Op.GERMINATE: ("slot", "blueprint", "operator", "tempo", "curve"),
    Op.ADVANCE: ("slot",),
    Op.SET_ALPHA_TARGET: ("slot", "tempo", "target", "curve"),
    Op.PRUNE: ("slot", "tempo", "curve"),
    Op.FOSSILIZE: ("slot",),
}
HEADS = ("op", "slot", "blueprint", "operator", "tempo", "target", "curve")
# [len(Op), len(HEADS)] True where an operation has this argument
_HAS_HEAD = np.array([[head == "op" or head in ARGUMENTS[op] for head in HEADS] for op in Op])

Value = str | int | float


@dataclass(frozen=True)
class Action:
    """One entry of the table as values; None for an argument that the operation does not take."""

    op: Op
    slot: str | None
    blueprint: str | None
    operator: str | None  # a name in Operator
    tempo: int | None
    target: float | None
    curve: str | None  # a name in Curve
    name: str  # for people and JSON, such as "GERMINATE block0 depthwise ADD tempo2"


@dataclass(frozen=True, eq=False)
class ActionTable:
    """All flat actions of an environment. A actions, S slots.

    Attributes:
        menus: Values that each head chooses from. Operations, operators and curves stand there by name.
        entries: Index into the menu of each head ``[A, len(HEADS)]``; 0 where the operation has no such argument.
    """

    menus: dict[str, tuple[Value, ...]]
    entries: IntArray

    @property
    def num_actions(self) -> int:
        return len(self.entries)

    @property
    def num_choices(self) -> tuple[int, ...]:
        """Size of each head of the factored form."""
        return tuple(len(self.menus[head]) for head in HEADS)

    # ── values ───────────────────────────────────────────────────────────────────────────────

    @cached_property
    def actions(self) -> tuple[Action, ...]:
        """All entries as values."""
        return tuple(self._action(entry) for entry in self.entries.tolist())

    def _action(self, entry: Sequence[int]) -> Action:
        op = Op(entry[0])
        values = {head: self.menus[head][i] for head, i in zip(HEADS, entry, strict=True) if head in ARGUMENTS[op]}
        words = [op.name]
        for head in ARGUMENTS[op]:
            if head != "curve" or len(self.menus["curve"]) > 1:
                words.append(f"{head}{values[head]}" if head in ("tempo", "target") else str(values[head]))
        return Action(
            op=op,
            slot=cast(str | None, values.get("slot")),
            blueprint=cast(str | None, values.get("blueprint")),
            operator=cast(str | None, values.get("operator")),
            tempo=cast(int | None, values.get("tempo")),
            target=cast(float | None, values.get("target")),
            curve=cast(str | None, values.get("curve")),
            name=" ".join(words),
        )

    def entry(self, action: int) -> Action:
        """Values of one flat action.

        Raises:
            ValueError: If the action is not in the table; nor is -1, which stands for no action.
        """
        if not 0 <= action < self.num_actions:
            raise ValueError(f"`action` must be from 0 to {self.num_actions - 1}, got {action}.")
        return self.actions[action]

    def column(self, head: str) -> IntArray:
        """Index into one head's menu for each action ``[A]``; `NONE` where the operation has no such argument."""
        i = HEADS.index(head)
        return np.where(_HAS_HEAD[self.entries[:, 0], i], self.entries[:, i], NONE)

    @cached_property
    def op(self) -> IntArray:
        """Operation of each action: members of Op, ``[A]``."""
        return self.column("op")

    @cached_property
    def slot(self) -> IntArray:
        """Index of each action's slot ``[A]``; `NONE` for WAIT."""
        return self.column("slot")

    def find(
        self,
        op: Op | None = None,
        slot: str | int | None = None,
        blueprint: str | None = None,
        operator: str | Operator | None = None,
        tempo: int | None = None,
        target: float | None = None,
        curve: str | Curve | None = None,
    ) -> IntArray:
        """Flat actions that have all the given values, in the order of the table; may be empty.

        Args:
            op: Operation.
            slot: Name of a slot, or its index.
            blueprint: Name of a blueprint.
            operator: Blend operator, or its name.
            tempo: Length of a ramp in steps.
            target: Alpha at the end of a ramp.
            curve: Curve of a ramp, or its name.

        Raises:
            ValueError: If a value is in no menu; the message names the nearest one.
        """
        asked = dict(zip(HEADS, (op, slot, blueprint, operator, tempo, target, curve), strict=True))
        has_all = np.ones(self.num_actions, dtype=np.bool_)
        for head, value in asked.items():
            if value is not None:
                has_all &= self.column(head) == self._index_in_menu(head, value)
        return np.flatnonzero(has_all)

    def _index_in_menu(self, head: str, value: Value | Enum) -> int:
        menu = self.menus[head]
        wanted = value.name if isinstance(value, Enum) else value
        if head == "slot" and isinstance(wanted, int | np.integer):
            menu = tuple(range(len(menu)))
        if wanted in menu:
            return menu.index(wanted)
        raise ValueError(
            f"`{head}` must be one of {', '.join(map(str, menu))}, got {wanted!r}.{_nearest(wanted, menu)}"
        )

    # ── names ────────────────────────────────────────────────────────────────────────────────

    @cached_property
    def names(self) -> tuple[str, ...]:
        """A name for each action, for people and JSON."""
        return tuple(action.name for action in self.actions)

    @cached_property
    def _index_of_name(self) -> dict[str, int]:
        return {name: i for i, name in enumerate(self.names)}

    def index(self, name: str) -> int:
        """Flat action with a given name, for names read from files.

        Raises:
            ValueError: If no action has this name; the message suggests the nearest one.
        """
        if name not in self._index_of_name:
            raise ValueError(f"`action` must be in the table, got {name!r}.{_nearest(name, self.names)}")
        return self._index_of_name[name]

    # ── other forms ──────────────────────────────────────────────────────────────────────────

    @cached_property
    def commands(self) -> Commands:
        """Every action as a command of the lifecycle, arrays of length A."""
        column = {head: self.entries[:, i] for i, head in enumerate(HEADS)}
        operators = np.array([Operator[str(name)] for name in self.menus["operator"]])
        curves = np.array([Curve[str(name)] for name in self.menus["curve"]])
        return Commands(
            op=column["op"],
            slot=column["slot"],
            blueprint=column["blueprint"],
            operator=operators[column["operator"]],
            tempo=np.array(self.menus["tempo"], dtype=np.int64)[column["tempo"]],
            curve=curves[column["curve"]],
            target=np.array(self.menus["target"], dtype=np.float64)[column["target"]],
        )

    @cached_property
    def _flat_index(self) -> IntArray:
        """Flat action of each factored combination, unused heads at 0; -1 where there is none."""
        lookup = np.full(int(np.prod(self.num_choices)), -1, dtype=np.int64)
        lookup[np.ravel_multi_index(tuple(self.entries.T), self.num_choices)] = np.arange(self.num_actions)
        return lookup

    def flatten(self, choices: IntArray) -> IntArray:
        """Factored actions ``[N, len(HEADS)]`` to flat ones ``[N]``; -1 for a combination that is not in the table."""
        used = np.where(_HAS_HEAD[choices[:, 0]], choices, 0)
        return np.asarray(self._flat_index[np.ravel_multi_index(tuple(used.T), self.num_choices)])

    @cached_property
    def uses(self) -> BoolArray:
        """Choices of the factored form that each action uses ``[A, sum(num_choices)]``."""
        return np.concatenate(
            [self.column(head)[:, None] == np.arange(len(self.menus[head])) for head in HEADS], axis=1
        )


def _nearest(wanted: object, menu: Sequence[Value]) -> str:
    """Hint that names the nearest value of a menu, with a leading space; empty if none is near."""
    numbers = [value for value in menu if not isinstance(value, str)]
    if numbers and isinstance(wanted, int | float):
        return f" The nearest is {min(numbers, key=lambda value: abs(value - wanted))}."
    return did_you_mean(wanted, [str(value) for value in menu])


def make_action_table(config: EnvConfig, slot_names: Sequence[str]) -> ActionTable:
    """Table of all actions: WAIT first, then slot by slot, and within a slot operation by operation."""
    tempos = tuple(sorted({*config.tempos, *config.prune_tempos}))
    menus: dict[str, tuple[Value, ...]] = {
        "op": tuple(op.name for op in Op),
        "slot": tuple(slot_names),
        "blueprint": config.blueprints,
        "operator": config.operators,
        "tempo": tempos,
        "target": config.targets or (1.0,),
        "curve": config.curves,
    }
    choices = {head: range(len(menu)) for head, menu in menus.items()}
    ramp = [tempos.index(tempo) for tempo in config.tempos]
    options: dict[Op, dict[str, Sequence[int]]] = {
        Op.GERMINATE: {"tempo": ramp},
        Op.SET_ALPHA_TARGET: {"tempo": ramp, "target": range(len(config.targets))},
        Op.PRUNE: {"tempo": [tempos.index(tempo) for tempo in config.prune_tempos]},
    }
    entries = [[0] * len(HEADS)]
    for slot, op in product(choices["slot"], [op for op in Op if op is not Op.WAIT]):
        allowed = {**choices, **options.get(op, {}), "op": [op], "slot": [slot]}
        columns = [allowed[head] if head in ("op", *ARGUMENTS[op]) else [0] for head in HEADS]
        entries += [list(entry) for entry in product(*columns)]
    return ActionTable(menus, np.array(entries, dtype=np.int64))


def flat_mask(
    table: ActionTable, state: LifecycleState, measurements: SeedMeasurements, config: EnvConfig
) -> BoolArray:
    """Flat actions that are legal now, ``[N, A]``: exactly those that would be carried out."""
    return legal_commands(state, table.commands, measurements, config.thresholds)


def factored_mask(table: ActionTable, flat: BoolArray) -> BoolArray:
    """Marginal masks of all heads, concatenated: a choice is allowed if some legal action uses it.

    Args:
        table: The actions.
        flat: Exact mask ``[N, A]``.

    Returns:
        ``[N, sum(num_choices)]``. A head that no legal action uses has all choices allowed, so no block is empty.
    """
    allowed = (flat.astype(np.float32) @ table.uses.astype(np.float32)) > 0
    for block in np.split(allowed, np.cumsum(table.num_choices)[:-1], axis=1):
        block |= ~block.any(axis=1, keepdims=True)
    return allowed
