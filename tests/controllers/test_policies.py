"""Controllers, schedules and the loop in which they play."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from functools import partial

import numpy as np
import pytest

from kasmina_env import KasminaVectorEnv, Policy, make_problem, register_policy
from kasmina_env.comparison.players import find_player
from kasmina_env.controllers.halving import neighbours
from kasmina_env.controllers.policy import CONTROLS, Played, play
from kasmina_env.controllers.schedule import Fixed, Plan, Planned, actions_of, load_schedule, plan_of, save_schedule
from kasmina_env.controllers.scripted import Plateau, Wait
from kasmina_env.controllers.search import neighbour, play_plans, random_plan, structured_plans, variations
from kasmina_env.lifecycle.state import Op

SPIRALS = "Kasmina/Spirals-v0"
IDS = (SPIRALS, "Kasmina/Digits-v0")
SMALL = {"batches_per_step": 1, "batch_size": 8, "watch_samples": 32, "score_samples": 32}
GROW: Plan = (Planned(0, "layer0", "mlp", "ADD", 3),)
# Menus whose first entry is neither all there is nor the shortest.
OTHER_MENUS = {"curves": ("LINEAR", "COSINE"), "operators": ("GATE",), "tempos": (8, 3), "prune_tempos": (3, 0)}


def small_env(preset: str = SPIRALS, num_envs: int = 3, **settings: object) -> KasminaVectorEnv:
    return KasminaVectorEnv(num_envs, preset, **{**SMALL, **settings})


def played_by(name: str, num_envs: int = 3, seeds: int = 3, preset: str = SPIRALS, dtype: str = "float32") -> Played:
    player = find_player(name, preset, **SMALL)
    env = KasminaVectorEnv(num_envs, player.problem, dtype=dtype)
    return play(env, player.policy, np.arange(seeds), planted=player.planted)


def begun(policy: Policy) -> Policy:
    """A policy at the start of one episode."""
    policy.begin(np.arange(1), small_env(num_envs=1).episodes)
    return policy


@pytest.mark.parametrize("preset", IDS)
@pytest.mark.parametrize("control", ["wait", "random", "plateau"])
def test_control_plays_only_legal_actions(preset, control):
    played = played_by(control, preset=preset)
    assert played.illegal.sum() == 0
    assert (played.actions >= 0).all()


def test_return_is_the_change_of_score_minus_what_it_cost():
    played = played_by("random")
    change = played.curves[:, -1] - played.curves[:, 0]
    assert (played.returns <= change + 1e-9).all()
    assert played.curves[:, -1] == pytest.approx(played.scores)


def test_waiting_costs_nothing():
    played = played_by("wait")
    assert played.returns == pytest.approx(played.scores - played.curves[:, 0])
    assert (played.computes == 0).all()


def test_episodes_do_not_depend_on_how_many_are_played_side_by_side():
    alone, together = (small_env(num_envs=n, dtype="float64") for n in (1, 4))
    scores = [play(env, Wait(env.problem), np.arange(4)).scores for env in (alone, together)]
    assert scores[0] == pytest.approx(scores[1])


@pytest.mark.parametrize("control", ["random", "plateau"])
@pytest.mark.parametrize("num_envs, num_episodes", [(6, 9), (4, 6), (6, 1)])
def test_a_seed_is_played_alike_whatever_the_rows_and_episodes_beside_it(control, num_envs, num_episodes):
    six, other = (played_by(control, *sizes, dtype="float64") for sizes in ((6, 6), (num_envs, num_episodes)))
    both = min(6, num_episodes)
    assert (six.actions[:both] == other.actions[:both]).all()
    assert six.returns[:both] == pytest.approx(other.returns[:both])


def test_chance_differs_from_seed_to_seed_and_not_from_one_time_to_the_next():
    first, again = played_by("random", seeds=4), played_by("random", seeds=4)
    assert (first.actions == again.actions).all()
    assert len(np.unique(first.actions, axis=0)) == 4


def test_more_episodes_than_rows_are_played_in_batches():
    played = played_by("wait", num_envs=2, seeds=5)
    assert len(np.unique(played.curves[:, 1:], axis=0)) == len(played.returns) == 5


def test_plan_is_carried_out_and_fossilized():
    env = small_env()
    plan = (*GROW, Planned(0, "layer1", "lora", "GATE", 5))
    played = play(env, Fixed(env.problem, actions_of(plan, env.problem)), np.arange(3))
    costs = env.problem.costs
    assert played.illegal.sum() == 0
    assert played.num_fossilized.tolist() == [2, 2, 2]
    grown = costs.seed_parameters[[0, 1], [3, 1], [0, 2]].sum()
    assert played.param_growths == pytest.approx(grown / costs.host_parameters)


def test_schedules_may_differ_from_row_to_row():
    env = small_env(num_envs=2)
    grow = actions_of(GROW, env.problem)
    played = play(env, Fixed(env.problem, np.stack([grow, np.zeros_like(grow)])), np.array([0, 0]))
    assert played.param_growths[0] > 0 == played.param_growths[1]


def test_schedule_survives_its_file(tmp_path):
    problem = make_problem(SPIRALS)
    actions = actions_of((Planned(3, "layer1", "lora", "GATE", 5),), problem)
    save_schedule(tmp_path / "x.json", problem, actions, {})
    assert (load_schedule(tmp_path / "x.json", problem) == actions).all()


def test_schedule_of_other_settings_is_refused_in_one_sentence(tmp_path):
    (tmp_path / "x.json").write_text(json.dumps({"steps": {"2": "GERMINATE attic mlp ADD tempo3"}}))
    with pytest.raises(ValueError, match=r"`x\.json` must hold actions .* got 'GERMINATE attic mlp ADD tempo3'"):
        load_schedule(tmp_path / "x.json", make_problem(SPIRALS))


def test_a_plan_of_several_curves_is_carried_out_and_read_back():
    env = small_env(num_envs=2, curves=("LINEAR", "COSINE"))
    plan = (*GROW, Planned(1, "layer1", "lora", "GATE", 5))
    actions = actions_of(plan, env.problem)
    assert plan_of(actions, env.problem.actions) == plan
    assert {env.problem.actions.entry(action).curve for action in actions} == {None, "LINEAR"}
    played = play(env, Fixed(env.problem, actions), np.arange(2))
    assert (played.illegal.tolist(), played.num_fossilized.tolist()) == ([0, 0], [2, 2])


@pytest.mark.parametrize("is_instant", [False, True])
def test_a_seed_may_be_grown_for_a_while_and_pruned(is_instant):
    env = small_env(num_envs=2, instant=is_instant, prune_tempos=(3, 0))
    plan = (*GROW, Planned(1, "layer1", "lora", "GATE", 5, prune=12))
    played = play(env, Fixed(env.problem, actions_of(plan, env.problem)), np.arange(2))
    assert (played.illegal.tolist(), played.num_fossilized.tolist()) == ([0, 0], [1, 1])
    pruned = env.problem.actions.entry(int(played.actions[0, 12]))
    assert (pruned.op, pruned.slot, pruned.tempo) == (Op.PRUNE, "layer1", 0)


def test_a_seed_pruned_in_training_is_not_advanced():
    env = small_env(num_envs=1)
    actions = actions_of((Planned(0, "layer0", "mlp", "ADD", 3, prune=2),), env.problem)
    assert env.problem.actions.op[actions[actions > 0]].tolist() == [Op.GERMINATE, Op.PRUNE]
    assert play(env, Fixed(env.problem, actions), np.arange(1)).illegal.tolist() == [0]


@pytest.mark.parametrize("prune", [None, 12])
def test_a_seed_may_rest_at_another_alpha(prune):
    env = small_env(num_envs=1, curves=("LINEAR", "COSINE"), targets=(0.25, 0.5))
    plan = (replace(GROW[0], curve="COSINE", target=0.5, prune=prune),)
    actions, table = actions_of(plan, env.problem), env.problem.actions
    assert plan_of(actions, table) == plan
    played = play(env, Fixed(env.problem, actions), np.arange(1))
    assert (played.illegal.tolist(), played.num_fossilized.tolist()) == ([0], [0])
    # two steps of training, three of the ramp
    assert (table.entry(actions[0]).curve, table.entry(actions[5]).target) == ("COSINE", 0.5)


def test_a_slot_is_grown_again_after_a_prune():
    env = small_env(num_envs=1)
    plan = (replace(GROW[0], prune=7), Planned(3, "layer1", "mlp", "ADD", 3), Planned(12, "layer0", "lora", "GATE", 5))
    actions = actions_of(plan, env.problem)
    assert plan_of(actions, env.problem.actions) == plan
    played = play(env, Fixed(env.problem, actions), np.arange(1))
    assert (played.illegal.tolist(), played.num_fossilized.tolist()) == ([0], [2])


def test_plans_take_what_the_menus_offer():
    problem, rng = make_problem(SPIRALS, **OTHER_MENUS), np.random.default_rng(0)
    plans = structured_plans(rng, problem, 1000) + [random_plan(rng, problem) for _ in range(50)]
    seeds = [seed for plan in plans for seed in plan]
    assert {seed.operator for seed in seeds} == {"GATE"}
    assert {seed.tempo for seed in seeds} == {3, 8}
    assert all(problem.actions.entry(seed.action(problem.actions)).tempo == seed.tempo for seed in seeds)


def test_plateau_grows_with_the_first_operator_and_the_shortest_tempo():
    problem = make_problem(SPIRALS, **OTHER_MENUS)
    observation, mask = np.zeros((1, len(problem.observations.names)), np.float32), problem.actions.op[None] < 2
    grown = problem.actions.entry(int(begun(Plateau(problem)).act(observation, mask)[0]))
    assert (grown.op, grown.operator, grown.tempo, grown.curve) == (Op.GERMINATE, "GATE", 3, "LINEAR")


def test_plateau_waits_while_accuracy_rises_and_grows_when_it_stalls():
    problem = make_problem(SPIRALS)
    table, column = problem.actions, problem.observations.column
    observation, mask = np.zeros((1, len(problem.observations.names)), np.float32), np.isin(table.op, (0, 1))[None]
    policy, observation[0, column("progress")] = begun(Plateau(problem)), 0.5
    observation[0, column("accuracy_change_3")] = 0.2
    assert policy.act(observation, mask).tolist() == [0]
    observation[0, column("accuracy_change_3")] = 0.0
    grown = [table.entry(int(policy.act(observation, mask)[0])) for _ in range(2)]
    assert [(a.op, a.slot, a.blueprint) for a in grown] == [
        (Op.GERMINATE, "layer0", "layer_norm"),
        (Op.GERMINATE, "layer0", "lora"),
    ]


@pytest.mark.parametrize("preset", IDS)
def test_the_shipped_schedule_fits_its_environment(preset):
    schedule = find_player("fixed", preset)
    assert isinstance(schedule.policy, Fixed)
    assert schedule.planted is None


def test_variations_of_a_plan_differ_from_it_in_one_choice_for_one_seed():
    problem = make_problem("Kasmina/Digits-v0")
    table = problem.actions
    plan = (Planned(0, "block0", "norm", "ADD", 2), Planned(4, "block1", "attention", "GATE", 4, prune=9))
    found = variations(plan, problem)
    assert plan not in found
    assert len(set(found)) == len(found)
    assert [other for other in found if len(other) == 1] == [plan[1:], plan[:1]]
    grown = [other for other in found if len(other) == 3]
    assert {other[2].blueprint for other in grown} == set(table.menus["blueprint"])
    assert all(other[:2] == plan and other[2].slot == "block2" for other in grown)
    names = []
    for other in (other for other in found if len(other) == 2):
        (changed,) = [(old, new) for old, new in zip(plan, other, strict=True) if old != new]
        old, new = (vars(seed) for seed in changed)
        names += [name for name in old if old[name] != new[name]]
    assert len(names) == len([other for other in found if len(other) == 2])  # one each
    assert set(names) == {"start", "slot", "blueprint", "operator", "tempo", "prune"}
    assert {len(other) for other in variations((), problem)} == {1}  # of waiting: one seed


def test_neighbour_plans_differ_from_their_origin():
    rng, problem = np.random.default_rng(0), make_problem("Kasmina/Digits-v0")
    plan = random_plan(rng, problem)
    assert all(other != plan for other in neighbours(plan, 20, partial(neighbour, rng, problem=problem)))


def test_search_tries_prunes_too():
    rng, problem = np.random.default_rng(0), make_problem("Kasmina/Digits-v0")
    prunes = [seed.prune for _ in range(50) for seed in random_plan(rng, problem)]
    assert None in prunes
    assert all(0 < step < problem.horizon for step in prunes if step is not None)
    plan = structured_plans(rng, problem, 1)[0]
    others = neighbours(plan, 40, partial(neighbour, rng, problem=problem))
    assert any(seed.prune is not None for other in others for seed in other)


def test_plans_are_measured_on_the_same_episodes_whatever_the_number_of_rows():
    seeds, env = np.array([5, 6, 7]), small_env(num_envs=4, dtype="float64")
    returns = play_plans(env, [(), GROW], seeds)
    assert returns[0] == pytest.approx(play(env, Wait(env.problem), seeds).returns)
    assert returns[1] == pytest.approx(play_plans(env, [GROW], seeds)[0])
    assert (returns[0] != returns[1]).all()


def test_equal_plans_are_played_once():
    seeds, played, env = np.array([5, 6]), [], small_env(num_envs=4)
    returns = play_plans(env, [GROW, (), GROW], seeds, on_step=played.append)
    assert sum(played) == 2 * len(seeds) * env.problem.horizon
    assert (returns[0] == returns[2]).all()
    assert (returns[0] != returns[1]).all()


@pytest.fixture
def controls(monkeypatch):
    """The registry of policies, which forgets what a test registers."""
    monkeypatch.setattr(CONTROLS, "_infos", dict(CONTROLS._infos))
    return CONTROLS


def test_a_policy_of_ones_own_is_registered_and_played_by_name(controls):
    @register_policy("eager")
    class Eager(Policy):
        """Always takes the last legal action.

        It remembers nothing, and so has no `begin`.
        """

        def __init__(self, problem):
            self.last = problem.actions.num_actions - 1

        def act(self, observation, mask):
            return self.last - mask[:, ::-1].argmax(axis=1)

    played = played_by("eager")
    assert controls.get("eager").meaning == "Always takes the last legal action"
    assert (played.illegal == 0).all()
    assert (played.actions[:, 0] > 0).all()


def test_a_policy_may_bring_settings_and_planted_seeds(controls):
    def planted(problem):
        return problem.actions.find(Op.GERMINATE)[:1]

    @register_policy("planter", settings={"instant": True}, planted=planted)
    def planter(problem):
        """Waits beside a seed that it does not keep."""
        return Wait(problem)

    player, played = find_player("planter", SPIRALS), played_by("planter")
    assert player.problem.config.instant
    assert (played.actions == 0).all()
    assert (played.computes > 0).all()
    assert (played.num_fossilized == 0).all()


def test_a_policy_has_one_name(controls):
    with pytest.raises(ValueError, match="`policy` must have a new name, got 'wait' a second time"):
        register_policy("wait")(Wait)


def test_a_policy_is_told_of_every_batch_of_episodes_before_it_decides(controls):
    told = []

    @register_policy("listener")
    class Listener(Wait):
        """Writes down the seeds of its episodes."""

        def begin(self, seeds, episodes):
            told.append((seeds.tolist(), episodes.report.step.tolist()))

    played_by("listener", num_envs=2, seeds=3)
    assert told == [([0, 1], [0, 0]), ([2, 0], [0, 0])]


MINE = """
from kasmina_env import Policy, register_policy
from kasmina_env.controllers.scripted import Wait


@register_policy("mine{number}")
class Mine(Wait):
    'Waits.'
"""


@pytest.fixture
def policy_file(controls, tmp_path, monkeypatch):
    """Writes a file that registers so many policies."""
    monkeypatch.setattr(sys, "path", [*sys.path])
    path = tmp_path / "a_policy_of_mine.py"

    def written(count):
        path.write_text("".join(MINE.format(number=number) for number in range(count)), encoding="utf-8")
        return str(path)

    yield written
    for name in [name for name, module in sys.modules.items() if getattr(module, "__file__", None) == str(path)]:
        del sys.modules[name]


def test_a_policy_is_played_by_the_path_of_its_file(policy_file, controls):
    first, again = (played_by(policy_file(1)) for _ in range(2))
    assert (first.actions == 0).all()
    assert (first.returns == again.returns).all()
    assert "mine0" in controls


@pytest.mark.parametrize("count, got", [(0, "none"), (2, "mine0, mine1")])
def test_a_file_must_register_one_policy(count, got, policy_file):
    with pytest.raises(ValueError, match=rf"a_policy_of_mine\.py` must register one policy .*, got {got}\."):
        find_player(policy_file(count), SPIRALS)


def test_a_file_of_a_policy_must_be_there():
    with pytest.raises(ImportError, match=r"`nowhere\.py` must be a \.py file that exists"):
        find_player("nowhere.py", SPIRALS)
