"""Actions: one table of flat entries; masks, names, the factored form and execution derive from it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import product

import numpy as np

from kasmina_env.lifecycle.alpha import Curve
from kasmina_env.lifecycle.arrays import BoolArray, IntArray
from kasmina_env.lifecycle.transitions import Commands, LifecycleState, Op, SeedMeasurements, legal_commands
from kasmina_env.settings.config import EnvConfig, Operator

# Which arguments an operation has, in the order of the heads of the factored form.
ARGUMENTS: dict[Op, tuple[str, ...]] = {
    Op.WAIT: (),
    Op.GERMINATE: ("slot", "blueprint", "operator", "tempo", "curve"),
    Op.ADVANCE: ("slot",),
    Op.SET_ALPHA_TARGET: ("slot", "tempo", "target", "curve"),
    Op.PRUNE: ("slot", "tempo", "curve"),
    Op.FOSSILIZE: ("slot",),
}
HEADS = ("op", "slot", "blueprint", "operator", "tempo", "target", "curve")


@dataclass(frozen=True)
class ActionTable:
    """All flat actions of an environment. A actions, S slots.

    Each entry holds, for every head, an index into that head's menu; 0 where its operation has no such argument.
    """

    menus: dict[str, tuple[str | int | float, ...]]  # head to what its indices stand for
    entries: IntArray  # [A, len(HEADS)]

    @property
    def num_actions(self) -> int:
        return len(self.entries)

    @property
    def num_choices(self) -> tuple[int, ...]:
        """Size of each head of the factored form."""
        return tuple(len(self.menus[head]) for head in HEADS)

    @cached_property
    def op(self) -> IntArray:
        return self.entries[:, 0]

    @cached_property
    def slot(self) -> IntArray:
        return self.entries[:, 1]

    @cached_property
    def names(self) -> tuple[str, ...]:
        """One readable name per action, such as "GERMINATE block0 depthwise ADD tempo2"."""
        return tuple(self._name(entry) for entry in self.entries)

    def _name(self, entry: IntArray) -> str:
        op = Op(int(entry[0]))
        words = [op.name]
        for head in ARGUMENTS[op]:
            value = self.menus[head][entry[HEADS.index(head)]]
            if head == "curve" and len(self.menus["curve"]) == 1:
                continue
            words.append(f"{head}{value}" if head in ("tempo", "target") else str(value))
        return " ".join(words)

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
        """Factored choices, with unused heads at 0, to the flat action; -1 where there is none."""
        lookup = np.full(int(np.prod(self.num_choices)), -1, dtype=np.int64)
        lookup[np.ravel_multi_index(tuple(self.entries.T), self.num_choices)] = np.arange(self.num_actions)
        return lookup

    @cached_property
    def _is_used(self) -> BoolArray:
        """Which heads each operation reads, [len(Op), len(HEADS)]."""
        return np.array([[head == "op" or head in ARGUMENTS[op] for head in HEADS] for op in Op])

    def flatten(self, choices: IntArray) -> IntArray:
        """Factored actions ``[N, len(HEADS)]`` to flat ones ``[N]``; -1 for a combination that is not in the table."""
        used = np.where(self._is_used[choices[:, 0]], choices, 0)
        return np.asarray(self._flat_index[np.ravel_multi_index(tuple(used.T), self.num_choices)])


def make_action_table(config: EnvConfig, slot_names: Sequence[str]) -> ActionTable:
    """List all actions of the menus: WAIT, then operation by operation within each slot."""
    tempos = tuple(sorted({*config.tempos, *config.prune_tempos}))
    menus: dict[str, tuple[str | int | float, ...]] = {
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
    return legal_commands(state, table.commands, measurements, config.rules)


def factored_mask(table: ActionTable, flat: BoolArray) -> BoolArray:
    """Marginal masks of all heads, concatenated: a choice is allowed if some legal action uses it.

    Args:
        table: The actions.
        flat: Exact mask ``[N, A]``.

    Returns:
        ``[N, sum(num_choices)]``. A head that no legal action uses has all choices allowed, so no block is empty.
    """
    blocks = []
    for head, size in enumerate(table.num_choices):
        is_used = table._is_used[table.op, head]  # [A]
        uses = (table.entries[:, head, None] == np.arange(size)) & is_used[:, None]  # [A, size]
        block = (flat.astype(np.float32) @ uses.astype(np.float32)) > 0
        blocks.append(block | ~block.any(axis=1, keepdims=True))
    return np.concatenate(blocks, axis=1)
