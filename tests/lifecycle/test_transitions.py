"""The lifecycle: its table row by row, stories of seeds, and all of it against a slow reference."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields, is_dataclass, replace
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kasmina_env.lifecycle.alpha import Curve, curve_value
from kasmina_env.lifecycle.arrays import take_rows
from kasmina_env.lifecycle.execution import apply, tick
from kasmina_env.lifecycle.legality import is_command_legal, legal_commands, legal_operations
from kasmina_env.lifecycle.state import NONE, Commands, Op, SeedMeasurements, Stage, Thresholds
from kasmina_env.lifecycle.state import LifecycleState as State
from kasmina_env.lifecycle.transitions import GUARDS, TRANSITIONS, rules_table

RULES = Thresholds()
INSTANT = Thresholds(instant=True)
NO_EMBARGO = Thresholds(embargo_steps=0)
FINE = SeedMeasurements(np.ones((1, 1), bool), np.ones((1, 1)), np.ones((1, 1), bool))
OPS = dict(zip(".GASPF", Op, strict=True))
COMMANDED = [row for row in TRANSITIONS if row.cause is not None]


def command(word: str, **changes: float) -> Commands:
    """Read ".", "G3" (tempo 3), "A", "S1/2:3" (target 1/2, tempo 3), "P3" or "F"."""
    target, _, tempo = word[1:].rpartition(":")
    values = {"op": OPS[word[0]], "blueprint": 1, "operator": 2, "tempo": int(tempo or 0)}
    values = {**values, "target": float(Fraction(target or 0)), **changes}
    return replace(Commands.wait(1), **{name: np.array([value]) for name, value in values.items()})


def live(story: str, rules: Thresholds = RULES) -> tuple[State, list[tuple[str, float]]]:
    """Let a seed live through legal commands; return the end and (stage, alpha) after each tick."""
    state, seen = State.dormant(1, 1), []
    for word in story.split():
        state, was_legal = apply(state, command(word), FINE, rules)
        assert was_legal.all(), word
        state = tick(state, rules)
        seen.append((Stage(state.stage.item()).name[0], pytest.approx(state.alpha.value.item())))
    return state, seen


def rows_equal(left: object, right: object, row: int | slice = 0) -> bool:
    """Whether some rows of two states are equal."""
    for a, b in [(getattr(left, f.name), getattr(right, f.name)) for f in fields(left)]:
        if not (rows_equal(a, b, row) if is_dataclass(a) else np.array_equal(a[row], b[row])):
            return False
    return True


# ── the table ───────────────────────────────────────────────────────────────────────────────────

PATHS = ["", "G3 .", "G3 . A . . S1/2:0", "G3 . A . .", "G3 . A . . F", "G3 . A . . P0"]


@pytest.mark.parametrize("row", COMMANDED, ids=lambda row: row.words)
def test_every_commanded_transition_happens(row) -> None:
    rules = INSTANT if "instant" in row.guards else RULES
    state = live(PATHS[row.stage])[0]  # PATHS[stage] leads to the stage
    moved, was_legal = apply(state, command("S1/4:3", op=row.cause), FINE, rules)
    assert was_legal.all()
    assert moved.stage.item() == row.next_stage
    is_entered = row.stage != row.next_stage
    assert moved.steps_in_stage.item() == (0 if is_entered else state.steps_in_stage.item())


@pytest.mark.parametrize("stage", Stage)
def test_a_stage_allows_the_operations_of_the_table_and_waiting(stage: Stage) -> None:
    state = live(PATHS[stage])[0]
    assert state.stage.item() == stage
    listed = {row.cause for row in COMMANDED if row.stage == stage} | {Op.WAIT}
    assert legal_operations(state, FINE, RULES)[0, 0].tolist() == [op in listed for op in Op]


def test_stages_say_who_has_a_seed_and_who_is_in_the_output() -> None:
    states = [live(PATHS[stage])[0] for stage in Stage]
    assert [state.has_seed.item() for state in states] == [False, True, True, True, True, False]
    assert [state.is_live.item() for state in states] == [False, False, True, True, True, False]


def test_the_table_names_known_guards_and_uses_all_of_them() -> None:
    assert {name for row in TRANSITIONS for name in row.guards} == set(GUARDS)


BAD_RULES = [(field.name, value) for field in fields(Thresholds) for value in (math.nan, "1")]
BAD_RULES += [(name, -1) for name in ("min_training_steps", "min_prune_age", "embargo_steps")]


@pytest.mark.parametrize("name, value", [*BAD_RULES, ("embargo_steps", 2.0), ("instant", 1)])
def test_rules_out_of_range_are_refused(name: str, value: object) -> None:
    with pytest.raises(ValueError, match=f"`{name}` must be"):
        Thresholds(**{name: value})


def test_the_rules_are_explained_with_their_values() -> None:
    table = rules_table(Thresholds(min_training_steps=7, min_contribution=0.25))
    assert len(table) == len(TRANSITIONS) + 1
    needs = {(row[0], row[1]): row[3] for row in table}
    assert needs["TRAINING", "ADVANCE"] == "7 or more steps in TRAINING, finite gradients"
    assert needs["HOLDING", "FOSSILIZE"] == "a measured contribution, minimum 0.25"
    assert needs["BLENDING", "PRUNE"].endswith("a tempo that ends a prune under way sooner")
    assert "a blueprint and an operator, a known curve" in needs["DORMANT", "GERMINATE"]


# ── stories ─────────────────────────────────────────────────────────────────────────────────────

# One command per step, and the stage (its first letter) with alpha as the networks train with it.
STORIES = {
    "an advanced seed holds after its ramp": ("G3 . A . . .", "T0 T0 B1/3 B2/3 H1 H1"),
    "a tempo of zero blends within one step": ("G0 . A", "T0 T0 H1"),
    "a negative tempo is a tempo of zero": ("G-5 . A P-5", "T0 T0 H1 E0"),
    "a pruned seed frees its slot after the embargo": ("G0 . A P0 . .", "T0 T0 H1 E0 E0 D0"),
    "a seed in training is removed at once": ("G3 . P8 . . G3", "T0 T0 E0 E0 D0 T0"),
    "a pruning seed is removed on the tick alpha reaches 0 and the embargo starts there": (
        "G0 . A P2 . . . .", "T0 T0 H1 B1/2 E0 E0 E0 D0"),
    "a harmful blend is stopped in the middle of its ramp": ("G3 . A P2 .", "T0 T0 B1/3 B1/6 E0"),
    "a slow prune can be finished at once": ("G0 . A P8 P0", "T0 T0 H1 B7/8 E0"),
    "a slow prune can be hastened": ("G0 . A P8 P2 .", "T0 T0 H1 B7/8 B7/16 E0"),
    "a seed at rest at 0 is pruned at once": ("G0 . A S0:0 . P5", "T0 T0 H1 B0 B0 E0"),
    "a seed at rest below 1 stays until it is raised": (
        "G0 . A S1/2:2 . . S1:0", "T0 T0 H1 B3/4 B1/2 B1/2 H1"),
    "a fossil stays": ("G0 . A F . . . .", "T0 T0 H1 F1 F1 F1 F1 F1"),
    "an instant seed holds at once": ("G5 F", "H1 F1", INSTANT),
    "an instant seed can be pruned": ("G5 . P2 .", "H1 H1 B1/2 E0", INSTANT),
    "without embargo a slot is free at once": ("G0 . A P0 G0", "T0 T0 H1 D0 T0", NO_EMBARGO),
    "without embargo a ramp frees it as it ends": ("G0 . A P1", "T0 T0 H1 D0", NO_EMBARGO),
}  # fmt: skip


@pytest.mark.parametrize("story", STORIES.values(), ids=list(STORIES))
def test_story(story: tuple) -> None:
    """Alpha lands exactly."""
    words, expected, rules = (*story, RULES)[:3]
    told = [(word[0], float(Fraction(word[1:]))) for word in expected.split()]
    assert live(words, rules)[1] == told


# What came before, and a command that is then illegal.
FORBIDDEN = {
    "a seed younger than two steps may not advance": ("G3", "A"),
    "a seed younger than two steps may not be pruned": ("G3", "P0"),
    "alpha may not be retargeted during its ramp": ("G3 . A", "S1/2:3"),
    "a prune may not be called off": ("G0 . A P8", "S1:0"),
    "a prune may not be drawn out by another": ("G0 . A P8", "P8"),
    "a holding seed may not be set to 1": ("G0 . A", "S1:3"),
    "a target must be another one than alpha": ("G0 . A S1/2:0", "S1/2:3"),
    "a target above 1 is no amplitude": ("G0 . A", "S2:3"),
    "a target below 0 is no amplitude": ("G0 . A", "S-1:3"),
    "an embargoed slot may not germinate": ("G0 . A P0", "G3"),
}
ABSENT = [{"slot": -1}, {"slot": 1}, {"op": -1}, {"op": 6}, {"blueprint": NONE}, {"operator": NONE}]
ABSENT += [{"curve": -1}, {"curve": len(Curve)}, {"curve": 2**40}]
FORBIDDEN |= {f"{absent} does not exist": ("", "G3", absent) for absent in ABSENT}


@pytest.mark.parametrize("case", FORBIDDEN.values(), ids=list(FORBIDDEN))
def test_forbidden(case: tuple) -> None:
    """What a policy asks for is never an error."""
    before, word, changes = (*case, {})[:3]
    state = live(before)[0]
    unchanged, was_legal = apply(state, command(word, **changes), FINE, RULES)
    assert not was_legal.any()
    assert rows_equal(unchanged, state)


def test_waiting_is_legal_whatever_the_other_fields_say() -> None:
    nonsense = command(".", slot=99, blueprint=-7, curve=50, target=math.nan)
    assert apply(State.dormant(1, 1), nonsense, FINE, RULES)[1].all()


def test_one_command_per_network_is_asked_for() -> None:
    with pytest.raises(ValueError, match="`commands` must be one per network, got"):
        apply(State.dormant(3, 1), Commands.wait(1), SeedMeasurements.unmeasured(3, 1), RULES)


def test_a_seed_without_finite_gradients_may_not_advance() -> None:
    assert not legal_operations(live("G3 .")[0], SeedMeasurements.unmeasured(1, 1), RULES)[0, 0, Op.ADVANCE]


@pytest.mark.parametrize("measured, minimum, expected", [(-9.0, None, True), (None, None, False),
    (math.nan, None, False), (0.5, 0.5, True), (0.4, 0.5, False), (None, -1.0, False)])  # fmt: skip
def test_fossilizing_needs_a_measured_contribution(measured, minimum, expected) -> None:
    known = np.full((1, 1), measured is not None)
    facts = replace(FINE, contribution=np.full((1, 1), measured or 0.0), has_contribution=known)
    rules = Thresholds(min_contribution=minimum)
    assert legal_operations(live("G0 . A")[0], facts, rules)[0, 0, Op.FOSSILIZE] == expected


def menu(word: str, **columns: list[float]) -> Commands:
    """Several commands that differ in the given columns."""
    (length,) = {len(values) for values in columns.values()}
    one = {name: np.repeat(values, length) for name, values in vars(command(word)).items()}
    return Commands(**{**one, **{name: np.array(values) for name, values in columns.items()}})


# A past, and a menu: which of its commands are legal then?
MENUS = {
    "targets in [0, 1] other than alpha": (
        "G0 . A", menu("S1:0", target=[0.0, 0.5, 1.0, -0.1, 1.1, np.nan]), [True, True] + [False] * 4),
    "tempos of a prune": ("G0 . A", menu("P0", tempo=[-1, 0, 6, 7, 8]), [True] * 5),
    "tempos that hasten a prune": ("G0 . A P8", menu("P0", tempo=[-1, 0, 6, 7, 8]), [True] * 3 + [False] * 2),
    "curves": ("", menu("G3", curve=[-1, 0, 4, 5]), [False, True, True, False]),
    "operations": ("G3 .", menu("A", op=[0, 1, 2, 3, 4, 5, 6]), [True, False, True, False, True, False, False]),
}  # fmt: skip


@pytest.mark.parametrize("story, commands, expected", MENUS.values(), ids=list(MENUS))
def test_a_menu_is_judged_command_by_command(story, commands, expected) -> None:
    assert legal_commands(live(story)[0], commands, FINE, RULES).tolist() == [expected]


# ── random lives ────────────────────────────────────────────────────────────────────────────────

N, S, NUM_STEPS = 12, 3, 40
RULE_SETS = [RULES, INSTANT, Thresholds(0, 0, 0), Thresholds(3, 0, 1, 0.5)]
lives = given(seed=st.integers(0, 2**32), rules=st.sampled_from(RULE_SETS))


def random_commands(rng: np.random.Generator, mask: np.ndarray) -> Commands:
    """Half of the commands are wild, half are operations that the mask [N, S, len(Op)] allows."""
    weights = rng.random(mask.shape) * mask * (np.arange(len(Op)) != Op.WAIT)
    slot, op = np.divmod(weights.reshape(N, -1).argmax(axis=1), len(Op))
    is_wild = rng.random(N) < 0.5
    return Commands(
        op=np.where(is_wild, rng.integers(-1, len(Op) + 1, N), op),
        slot=np.where(is_wild, rng.integers(-2, S + 2, N), slot),
        blueprint=rng.integers(-1, 9, N),
        operator=rng.integers(-1, 9, N),
        tempo=rng.choice([-1, 0, 1, 3, 5], N),
        curve=rng.integers(-1, len(Curve) + 1, N),
        target=rng.choice([-0.1, 0.0, 0.3, 0.7, 1.0, 1.0, np.nan], N),
    )


def random_life(seed: int, rules: Thresholds):
    """Steps of a random history: before, commands, facts, after apply, legal, after tick."""
    rng, state = np.random.default_rng(seed), State.dormant(N, S)
    for _ in range(NUM_STEPS):
        contribution = np.where(rng.random((N, S)) < 0.1, np.nan, rng.normal(size=(N, S)))
        facts = SeedMeasurements(rng.random((N, S)) < 0.8, contribution, rng.random((N, S)) < 0.8)
        commands = random_commands(rng, legal_operations(state, facts, rules))
        applied, is_legal = apply(state, commands, facts, rules)
        yield state, commands, facts, applied, is_legal, (state := tick(applied, rules))


@lives
def test_alpha_and_names_always_agree_with_the_stage(seed: int, rules: Thresholds) -> None:
    for *_, applied, _, ticked in random_life(seed, rules):
        for state in (applied, ticked):
            alpha, stage = state.alpha.value, state.stage
            assert ((alpha >= 0.0) & (alpha <= 1.0)).all()
            assert (alpha[~state.is_live] == 0.0).all()
            assert (alpha[(stage == Stage.HOLDING) | (stage == Stage.FOSSILIZED)] == 1.0).all()
            assert state.alpha.is_at_rest[stage != Stage.BLENDING].all()
            assert (stage[state.is_pruning] == Stage.BLENDING).all()
            assert ((state.blueprint != NONE) == state.has_seed).all()
            assert ((state.operator != NONE) == state.has_seed).all()


@lives
def test_exactly_the_legal_commands_change_their_row(seed: int, rules: Thresholds) -> None:
    for state, commands, facts, applied, is_legal, _ in random_life(seed, rules):
        mask = legal_operations(state, facts, rules)
        for row, (op, slot) in enumerate(zip(commands.op, commands.slot, strict=True)):
            acts = is_legal[row] and op != Op.WAIT
            assert rows_equal(state, applied, row) == (not acts)
            assert not acts or mask[row, slot, op]
            assert is_legal[row] or op != Op.WAIT


@lives
def test_a_menu_for_all_networks_is_judged_as_each_network_alone(seed: int, rules: Thresholds) -> None:
    for state, commands, facts, *_ in random_life(seed, rules):
        masks = legal_commands(state, commands, facts, rules)  # [N, C], command i is that of network i
        for i in range(N):
            same = Commands(**{name: np.repeat(values[i], N) for name, values in vars(commands).items()})
            assert masks[:, i].tolist() == is_command_legal(state, same, facts, rules).tolist()


@lives
def test_rows_live_alone_as_they_live_together(seed: int, rules: Thresholds) -> None:
    row = [seed % N]
    for state, commands, facts, _, is_legal, ticked in random_life(seed, rules):
        arguments = (take_rows(batch, row) for batch in (state, commands, facts))
        applied, was_legal = apply(*arguments, rules)
        assert was_legal == is_legal[row]
        assert rows_equal(tick(applied, rules), take_rows(ticked, row))


@lives
def test_no_state_is_changed_in_place(seed: int, rules: Thresholds) -> None:
    history = [(state, take_rows(state, range(N))) for state, *_ in random_life(seed, rules)]
    assert all(rows_equal(*pair, slice(None)) for pair in history)


def test_random_lives_use_every_operation_of_the_table() -> None:
    used = set()
    history = [moment for rules in RULE_SETS for moment in random_life(0, rules)]
    for state, commands, _, _, is_legal, _ in history:
        rows = np.flatnonzero(is_legal & (commands.op != Op.WAIT))
        used |= set(zip(state.stage[rows, commands.slot[rows]], commands.op[rows], strict=True))
    assert used == {(row.stage, row.cause) for row in COMMANDED}


@dataclass
class Slot:
    """One slot in plain Python, written from the prose of the design and not from the table."""

    rules: Thresholds
    stage: Stage = Stage.DORMANT
    blueprint: int = NONE
    tempo: int = 0
    curve: int = 0
    steps_in_stage: int = 0
    age: int = 0
    is_pruning: bool = False
    alpha: float = 0.0
    ramp: tuple[float, float, int, int] | None = None  # start, target, length, curve
    taken: int = 0

    def enter(self, stage: Stage) -> None:
        self.stage, self.steps_in_stage = stage, 0

    def remove(self) -> None:
        vars(self).update(vars(Slot(self.rules, Stage.EMBARGOED)))

    def ramp_to(self, target: float, length: int, curve: int) -> None:
        self.ramp, self.taken = (self.alpha, target, length, curve), 0
        if length <= 0 or target == self.alpha:
            self.alpha, self.ramp = target, None

    def may(self, op: Op, facts: dict, given: dict) -> bool:
        stage, rules, has_curve = self.stage, self.rules, 0 <= given["curve"] < len(Curve)
        if op == Op.GERMINATE:
            is_named = given["blueprint"] >= 0 and given["operator"] >= 0
            return stage == Stage.DORMANT and is_named and has_curve
        if op == Op.ADVANCE:
            is_ready = self.steps_in_stage >= rules.min_training_steps
            return stage == Stage.TRAINING and is_ready and facts["has_finite_gradients"]
        if op == Op.SET_ALPHA_TARGET:
            is_free = stage in (Stage.BLENDING, Stage.HOLDING) and not self.is_pruning
            is_new = 0 <= given["target"] <= 1 and given["target"] != self.alpha
            return is_free and self.ramp is None and is_new and has_curve
        if op == Op.PRUNE:
            is_loose = stage in (Stage.TRAINING, Stage.BLENDING, Stage.HOLDING)
            is_sooner = self.ramp is None or max(given["tempo"], 0) < self.ramp[2] - self.taken
            return is_loose and self.age >= rules.min_prune_age and has_curve and (is_sooner or not self.is_pruning)
        least = -math.inf if rules.min_contribution is None else rules.min_contribution
        is_worthy = facts["has_contribution"] and facts["contribution"] >= least
        return stage == Stage.HOLDING and is_worthy

    def do(self, op: Op, given: dict) -> None:
        if op == Op.GERMINATE:
            self.blueprint, self.curve = given["blueprint"], given["curve"]
            self.tempo = max(given["tempo"], 0)
            self.enter(Stage.HOLDING if self.rules.instant else Stage.TRAINING)
            self.alpha = float(self.rules.instant)
        elif op == Op.FOSSILIZE:
            self.enter(Stage.FOSSILIZED)
        elif op == Op.ADVANCE:
            self.enter(Stage.BLENDING)
            self.ramp_to(1.0, self.tempo, self.curve)
        else:
            if self.stage == Stage.HOLDING:
                self.enter(Stage.BLENDING)
            self.is_pruning = op == Op.PRUNE
            target = 0.0 if self.is_pruning else given["target"]
            self.ramp_to(target, given["tempo"], given["curve"])
            if self.is_pruning and self.ramp is None:
                self.remove()

    def tick(self) -> None:
        self.steps_in_stage += 1
        self.age += self.blueprint != NONE
        if self.ramp is not None:
            self.taken += 1
            start, target, length, curve = self.ramp
            rise = curve_value(np.array(curve), np.array(self.taken / length)).item()
            self.alpha = start + (target - start) * rise
            if self.taken == length:
                self.alpha, self.ramp = target, None
        if self.ramp is None and self.is_pruning:
            self.remove()
        elif self.ramp is None and self.stage == Stage.BLENDING and self.alpha == 1.0:
            self.enter(Stage.HOLDING)
        if self.stage == Stage.EMBARGOED and self.steps_in_stage >= self.rules.embargo_steps:
            self.enter(Stage.DORMANT)


def slow_step(slots: list[Slot], commands: Commands, facts: SeedMeasurements, row: int) -> bool:
    """Let one row of slots live one step; return whether its command was legal."""
    given = {name: values[row].item() for name, values in vars(commands).items()}
    op, slot = given["op"], given["slot"]
    is_legal = op == Op.WAIT
    if op in list(Op)[1:] and 0 <= slot < len(slots):
        known = {name: values[row, slot].item() for name, values in vars(facts).items()}
        is_legal = slots[slot].may(op, known, given)
        if is_legal:
            slots[slot].do(op, given)
    for one in slots:
        one.tick()
    return is_legal


@lives
def test_the_lifecycle_agrees_with_the_slow_reference(seed: int, rules: Thresholds) -> None:
    slow = [[Slot(rules) for _ in range(S)] for _ in range(N)]
    for _, commands, facts, _, is_legal, state in random_life(seed, rules):
        verdicts = [slow_step(slots, commands, facts, row) for row, slots in enumerate(slow)]
        assert is_legal.tolist() == verdicts
        for name in ["stage", "blueprint", "tempo", "curve", "steps_in_stage", "age", "is_pruning"]:
            expected = [[getattr(slot, name) for slot in slots] for slots in slow]
            assert getattr(state, name).tolist() == expected, name
        alpha = [[slot.alpha for slot in slots] for slots in slow]
        np.testing.assert_allclose(state.alpha.value, alpha, atol=1e-12)
