"""Contexts: a grid over what is visible of an instance, and a schedule for each of its cells."""

from __future__ import annotations

import numpy as np
import pytest

from kasmina_env import KasminaVectorEnv, make_problem
from kasmina_env.controllers.per_context import (
    Context,
    PerContext,
    contexts_of,
    load_contexts,
    make_contexts,
    nearest,
    save_contexts,
)
from kasmina_env.controllers.policy import play
from kasmina_env.controllers.schedule import Planned, actions_of
from kasmina_env.lifecycle.state import Op

MIX = "Kasmina/DigitsMix-v0"
SMALL = {"batches_per_step": 1, "batch_size": 8, "watch_samples": 16, "score_samples": 16}
PRICE = "instance.param_price"


def two_contexts(problem):
    first = problem.actions.entry(problem.actions.find(Op.GERMINATE)[0])
    plan = (Planned(0, first.slot, first.blueprint, first.operator, first.tempo),)
    grow = actions_of(plan, problem)
    return [(Context({PRICE: (0.0, 0.5)}), grow, 0.5), (Context({PRICE: (0.5, 1.0)}), np.zeros_like(grow), 0.1)]


def test_every_instance_lies_in_its_cell_and_no_cell_is_empty():
    values = np.random.default_rng(0).random((100, 2))
    cells = make_contexts(["a", "b"], values)
    home = nearest(cells, ["a", "b"], values)
    for (a, b), i in zip(values, home, strict=True):
        (low_a, high_a), (low_b, high_b) = cells[i].bounds["a"], cells[i].bounds["b"]
        assert low_a <= a <= high_a
        assert low_b <= b <= high_b
    assert set(home) == set(range(len(cells)))


def test_a_fact_of_two_values_makes_two_cells():
    values = np.tile([0.0, 1.0], 10)[:, None]
    assert len(make_contexts(["width"], values)) == 2


def test_what_lies_outside_the_grid_belongs_to_the_nearest_cell():
    cells = [Context({"a": (0.0, 1.0)}), Context({"a": (1.0, 2.0)})]
    assert nearest(cells, ["a"], np.array([[-5.0], [0.5], [1.5], [9.0]])).tolist() == [0, 0, 1, 1]


def test_contexts_of_a_family_come_from_the_instances_to_train_on():
    problem = make_problem(MIX)
    contexts, homes = contexts_of(problem, ["param_price"])
    assert len(homes) == problem.instances.num_train
    assert {tuple(context.bounds) for context in contexts} == {(PRICE,)}


def test_each_network_plays_the_schedule_of_its_context():
    problem = make_problem(MIX, **SMALL)
    contexts, schedules, _ = zip(*two_contexts(problem), strict=True)
    price = problem.instances.scaled_facts()[:, list(problem.instances.visible).index("param_price")]
    instances = np.array([np.argmin(price), np.argmax(price)] * 2)
    policy = PerContext(problem, contexts, np.stack(schedules))
    played = play(KasminaVectorEnv(4, problem), policy, np.arange(4), instances=instances)
    assert (played.param_growths > 0).tolist() == [True, False, True, False]


def test_contexts_survive_their_file(tmp_path):
    problem = make_problem(MIX)
    save_contexts(tmp_path / "x.json", problem, two_contexts(problem), {})
    loaded = load_contexts(tmp_path / "x.json", problem)
    assert loaded.contexts == [context for context, _, _ in two_contexts(problem)]
    assert (loaded.schedules == np.stack([actions for _, actions, _ in two_contexts(problem)])).all()


@pytest.mark.parametrize(
    "preset, facts, sentence",
    [("Kasmina/Spirals-v0", [], "must be of a family"), (MIX, ["parm_price"], "Did you mean 'param_price'?")],
)
def test_a_grid_that_cannot_be_is_refused(preset, facts, sentence):
    with pytest.raises(ValueError, match=sentence):
        contexts_of(make_problem(preset), facts)
