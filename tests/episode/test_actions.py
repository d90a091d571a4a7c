"""Actions: the table holds every combination once, masks are exact, and what is not legal is WAIT."""

from __future__ import annotations

import json
from itertools import product

import gymnasium as gym
import numpy as np
import pytest

from kasmina_env.episode.actions import ARGUMENTS, HEADS
from kasmina_env.lifecycle.alpha import Curve
from kasmina_env.lifecycle.legality import is_command_legal
from kasmina_env.lifecycle.state import Commands, Op
from kasmina_env.settings.config import Operator
from kasmina_env.settings.paths import slug
from tests.episodes import (
    ALWAYS_IDS,
    FORMS,
    IDS,
    ROOT,
    WAIT,
    digest,
    illegal_actions,
    in_form,
    lively_actions,
    mixed_actions,
    networks_of,
    op_actions,
    small_env,
    small_vec,
)

MAX_DEFAULT_ACTIONS = 200
SPIRALS = ALWAYS_IDS[0]
TELLTALES = ("last_action_legal", "last_op=")  # entries of the observation that may differ from those after WAIT


def all_choices(table):
    """Every factored action, as indices and as what they stand for."""
    for choice in product(*(range(size) for size in table.num_choices)):
        yield choice, {head: table.menus[head][i] for head, i in zip(HEADS, choice, strict=True)}


def spelled(table, values):
    """The name that an action with these values should have."""
    op = Op[values["op"]]
    words = [op.name]
    for head in ARGUMENTS[op]:
        if head != "curve" or len(table.menus["curve"]) > 1:
            words.append({"tempo": "tempo{}", "target": "target{}"}.get(head, "{}").format(values[head]))
    return " ".join(words)


def in_menu(config, values):
    """Whether the settings allow this combination."""
    op = values["op"]
    tempos = config.prune_tempos if op == "PRUNE" else config.tempos
    has_tempo = "tempo" not in ARGUMENTS[Op[op]] or values["tempo"] in tempos
    return has_tempo and (op != "SET_ALPHA_TARGET" or values["target"] in config.targets)


# ── the table ───────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("env_id", IDS)
def test_names_are_unique_and_one_for_each_action(env_id):
    env = small_env(env_id)
    assert len(set(env.action_names)) == len(env.action_names) == env.action_space.n
    assert env.action_names[WAIT] == "WAIT"


@pytest.mark.parametrize("env_id", IDS)
def test_table_of_the_preset_itself_is_of_a_size_that_can_be_learned(env_id):
    assert gym.make(env_id).action_space.n <= MAX_DEFAULT_ACTIONS


@pytest.mark.parametrize("env_id", IDS)
@pytest.mark.parametrize("menus", [{}, {"curves": ("LINEAR", "COSINE")}, {"targets": ()}], ids=str)
def test_factored_and_flat_actions_are_the_same_by_name(env_id, menus):
    env = small_env(env_id, **menus)
    table, seen = env.problem.actions, set()
    for choice, values in all_choices(table):
        flat = int(table.flatten(np.array([choice]))[0])
        assert (flat >= 0) == in_menu(env.problem.config, values)
        if flat >= 0:
            assert table.names[flat] == spelled(table, values)
            seen.add(flat)
    assert seen == set(range(table.num_actions))


@pytest.mark.parametrize("env_id", IDS)
def test_entries_of_the_table_are_factored_actions_and_come_back(env_id):
    env = small_env(env_id, action_space="factored")
    assert all(env.action_space.contains(entry) for entry in env.problem.actions.entries)
    assert (
        env.problem.actions.flatten(env.problem.actions.entries) == np.arange(env.problem.actions.num_actions)
    ).all()


# ── values ──────────────────────────────────────────────────────────────────────────────────────

MENUS = {"curves": ("LINEAR", "COSINE"), "operators": ("GATE", "ADD"), "targets": (0.25, 1.0)}


def table_of(env_id=SPIRALS, **menus):
    return small_env(env_id, **menus).problem.actions


@pytest.mark.parametrize("menus", [{}, MENUS, {"targets": ()}], ids=["preset", "menus", "no targets"])
@pytest.mark.parametrize("env_id", ALWAYS_IDS)
def test_an_entry_has_the_values_of_its_action_and_is_found_by_them(env_id, menus):
    table = table_of(env_id, **menus)
    for i, action in enumerate(table.actions):
        values = {head: getattr(action, head) for head in HEADS}
        assert {head for head, value in values.items() if value is not None} == {"op", *ARGUMENTS[action.op]}
        assert table.entry(i) is action
        assert table.index(action.name) == i
        if action.op is not Op.WAIT:
            assert table.find(**values).tolist() == [i]


@pytest.mark.parametrize("head", HEADS)
def test_find_gives_all_actions_with_a_value_and_no_others(head):
    table = table_of(**MENUS)
    for value in table.menus[head]:
        wanted = [
            i
            for i, action in enumerate(table.actions)
            if getattr(action, head) == (Op[value] if head == "op" else value)
        ]
        assert table.find(**{head: value}).tolist() == wanted != []


def test_find_takes_slots_by_index_and_enums_by_member():
    table = table_of(**MENUS)
    by_name = table.find(Op.GERMINATE, slot="layer1", operator="GATE", curve="COSINE")
    by_member = table.find(Op.GERMINATE, slot=1, operator=Operator.GATE, curve=Curve.COSINE)
    assert by_name.tolist() == by_member.tolist() != []


def test_find_is_empty_where_no_action_has_all_the_values():
    table = table_of(targets=())
    assert table.find(Op.GERMINATE, tempo=0).tolist() == []  # only PRUNE has tempo 0
    assert table.find(Op.WAIT, slot=0).tolist() == []
    assert table.find(Op.SET_ALPHA_TARGET).tolist() == []


@pytest.mark.parametrize(
    "values, message",
    [
        ({"blueprint": "lroa"}, "one of layer_norm, lora, mlp_small, mlp, got 'lroa'. Did you mean 'lora'?"),
        ({"slot": "layer"}, "`slot` must be one of layer0, layer1, got 'layer'. Did you mean 'layer"),
        ({"slot": 7}, "`slot` must be one of 0, 1, got 7. The nearest is 1."),
        ({"slot": -1}, "`slot` must be one of 0, 1, got -1. The nearest is 0."),
        ({"tempo": 5}, "`tempo` must be one of 0, 1, 2, got 5. The nearest is 2."),
        ({"target": 0.6}, "`target` must be one of 0.5, 1.0, got 0.6. The nearest is 0.5."),
        ({"curve": Curve.SIGMOID_6}, "`curve` must be one of LINEAR, got 'SIGMOID_6'."),
        ({"op": "PRUN"}, "FOSSILIZE, got 'PRUN'. Did you mean 'PRUNE'?"),
    ],
)  # fmt: skip
def test_a_value_that_is_in_no_menu_is_answered_with_the_nearest(values, message):
    with pytest.raises(ValueError) as caught:  # noqa: PT011
        table_of().find(**values)
    assert message in str(caught.value)


def test_an_unknown_name_and_an_index_that_is_no_action_are_refused():
    table = table_of()
    with pytest.raises(ValueError, match=r"got 'ADVANCE layr0'\. Did you mean 'ADVANCE layer0'\?"):
        table.index("ADVANCE layr0")
    for action in (-1, table.num_actions):
        with pytest.raises(ValueError, match=f"`action` must be from 0 to {table.num_actions - 1}, got {action}"):
            table.entry(action)


@pytest.mark.parametrize("env_id", ALWAYS_IDS)
def test_names_in_shipped_schedules_are_found(env_id):
    shipped = json.loads((ROOT / "configs" / f"{slug(env_id)}.schedule.json").read_text(encoding="utf-8"))
    table = gym.make(env_id).unwrapped.problem.actions
    found = [table.entry(table.index(name)).name for name in shipped["steps"].values()]
    assert found == list(shipped["steps"].values()) != []


# ── masks ───────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("instant", [False, True], ids=["staged", "instant"])
@pytest.mark.parametrize("env_id", IDS)
def test_mask_is_the_legality_of_the_lifecycle_for_every_action(env_id, instant):
    vec, rng, seen = small_vec(env_id, num_envs=16, instant=instant), np.random.default_rng(0), set()
    vec.reset(seed=0)
    for _ in range(12):
        view, masks = vec.episodes.state(), vec.action_masks()
        seen |= set(vec.problem.actions.op[masks.any(axis=0)])
        for action, mask in enumerate(masks.T):
            chosen = {name: np.repeat(a[action], 16) for name, a in vars(vec.problem.actions.commands).items()}
            verdict = is_command_legal(
                view.lifecycle, Commands(**chosen), view.now.seeds, vec.problem.config.thresholds
            )
            assert (verdict == mask).all(), vec.action_names[action]
        vec.step(mixed_actions(rng, vec))
    assert seen == set(Op) - ({Op.ADVANCE} if instant else set())


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("env_id", IDS)
def test_mask_says_of_every_action_whether_it_is_carried_out(env_id, form):
    num_actions = small_env(env_id).problem.actions.num_actions
    vec, rng = small_vec(env_id, num_envs=num_actions, action_space=form), np.random.default_rng(1)
    vec.reset(seed=1)
    for _ in range(4):
        for _ in range(2):
            vec.step(in_form(vec, lively_actions(rng, vec)))
        saved, masks = vec.snapshot(), vec.episodes.report.mask
        vec.copy_rows([0] * (num_actions - 1), range(1, num_actions))
        infos = vec.step(in_form(vec, np.arange(num_actions)))[4]
        assert (infos["action_legal"] == masks[0]).all()
        vec.restore(saved)


@pytest.mark.parametrize("env_id", IDS)
def test_mask_is_the_same_before_and_after_a_look_at_it(env_id):
    vec, rng = small_vec(env_id), np.random.default_rng(0)
    vec.reset(seed=0)
    vec.step(lively_actions(rng, vec))
    before = digest(vec.snapshot())
    masks = vec.action_masks()
    masks[:] = False
    assert vec.action_masks()[:, WAIT].all()
    assert digest(vec.snapshot()) == before


@pytest.mark.parametrize("env_id", IDS)
def test_factored_mask_allows_what_some_legal_action_uses(env_id):
    vec, rng = small_vec(env_id, num_envs=4, action_space="factored"), np.random.default_rng(2)
    vec.reset(seed=2)
    for _ in range(9):
        vec.step(in_form(vec, lively_actions(rng, vec)))
        flat, blocks = vec.episodes.report.mask, vec.action_masks()
        names = [(head, value) for head in HEADS for value in vec.problem.actions.menus[head]]
        for row in range(4):
            legal = [dict(zip(HEADS, entry, strict=True)) for entry in vec.problem.actions.entries[flat[row]]]
            assert blocks[row].tolist() == [is_used(vec, legal, head, value) for head, value in names]


def is_used(vec, legal, head, value):
    """Whether a legal action uses this value of a head, or none uses the head at all."""
    using = [e for e in legal if head == "op" or head in ARGUMENTS[Op(e["op"])]]
    return not using or any(vec.problem.actions.menus[head][e[head]] == value for e in using)


@pytest.mark.parametrize("env_id", IDS)
def test_no_block_of_a_mask_is_ever_empty(env_id):
    vec, rng = small_vec(env_id, num_envs=32, action_space="factored"), np.random.default_rng(3)
    starts = np.cumsum([0, *vec.single_action_space.nvec[:-1]])
    vec.reset(seed=3)
    for _ in range(20):
        vec.step(in_form(vec, mixed_actions(rng, vec)))
        assert np.logical_or.reduceat(vec.action_masks(), starts, axis=1).all()
        assert vec.episodes.report.mask[:, WAIT].all()


# ── what is not legal ───────────────────────────────────────────────────────────────────────────


def visible(vec, step):
    """What a step shows, without what may tell an illegal action from WAIT."""
    obs, *rest, infos = step
    is_telltale = [name.startswith(TELLTALES) for name in vec.observation_names]
    kept = {key: value for key, value in infos.items() if key not in ("action_legal", "actions", "final_info")}
    return obs[:, ~np.array(is_telltale)], rest, {k: v for k, v in kept.items() if k != "final_obs"}


@pytest.mark.parametrize("env_id", IDS)
def test_illegal_action_is_exactly_wait(env_id):
    bold, waiting, rng = small_vec(env_id, 12), small_vec(env_id, 12), np.random.default_rng(4)
    bold.reset(seed=4), waiting.reset(seed=4)
    for step in range(9):
        actions = lively_actions(rng, bold)
        is_illegal = rng.random(12) < 0.5 if step else np.zeros(12, dtype=bool)
        one = bold.step(np.where(is_illegal, illegal_actions(rng, bold), actions))
        other = waiting.step(np.where(is_illegal, WAIT, actions))
        assert one[4]["action_legal"].tolist() == (~is_illegal).tolist()
        assert other[4]["action_legal"].all()
        assert digest(visible(bold, one)) == digest(visible(waiting, other))
    assert digest(networks_of(bold)) == digest(networks_of(waiting))


@pytest.mark.parametrize("env_id", IDS)
def test_combination_that_is_in_no_menu_counts_as_wait(env_id):
    env = small_env(env_id, action_space="factored")
    env.reset(seed=0)
    choice = env.problem.actions.entries[op_actions(env, Op.GERMINATE)[0]].copy()
    choice[HEADS.index("tempo")] = env.problem.actions.menus["tempo"].index(0)  # only PRUNE has tempo 0
    assert env.action_space.contains(choice)
    info = env.step(choice)[4]
    assert info["action_legal"] is False
    assert info["num_alive"] == 0


@pytest.mark.parametrize("env_id", IDS)
def test_heads_that_an_operation_does_not_read_do_not_matter(env_id):
    env, rng = small_env(env_id, action_space="factored"), np.random.default_rng(5)
    env.reset(seed=5)
    choice = np.array([rng.integers(size) for size in env.action_space.nvec])
    choice[HEADS.index("op")] = Op.WAIT
    assert env.step(choice)[4]["action_legal"] is True


@pytest.mark.parametrize("kind", [int, np.int64, np.int32, np.array], ids=lambda kind: kind.__name__)
def test_action_may_be_any_kind_of_integer(kind):
    env = small_env(IDS[0])
    env.reset(seed=0)
    germinate = int(op_actions(env, Op.GERMINATE)[0])
    assert env.step(kind(germinate))[4]["num_alive"] == 1
