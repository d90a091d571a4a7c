"""Actions: the table holds every combination once, masks are exact, and what is not legal is WAIT."""

from __future__ import annotations

from itertools import product

import gymnasium as gym
import numpy as np
import pytest

from kasmina_env.episode.actions import ARGUMENTS, HEADS
from kasmina_env.lifecycle.transitions import Commands, Op, is_command_legal
from tests.episodes import (
    FORMS,
    IDS,
    WAIT,
    digest,
    illegal_actions,
    in_form,
    lively_actions,
    mixed_actions,
    op_actions,
    small_env,
    small_vec,
)

MAX_DEFAULT_ACTIONS = 200
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
            verdict = is_command_legal(view.lifecycle, Commands(**chosen), view.facts, vec.problem.config.rules)
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
    assert digest(bold.snapshot().networks) == digest(waiting.snapshot().networks)


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
