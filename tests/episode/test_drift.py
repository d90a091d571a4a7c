"""Data that change while a network is in service, each network's at its own steps."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from kasmina_env import KasminaVectorEnv, make_problem
from kasmina_env.settings.instances import draw_family
from tests.episodes import SMALL, digest

ID = "Kasmina/DigitsService-v0"
SETTINGS = {**SMALL, "warmup_batches": 2, "task": "digits", "task_settings": {}}
TURN, BACK = [3, "turn", 180.0], [5, "none", 0.0]


@pytest.fixture
def family(tmp_path):
    """Settings of a family: no event, one that ends, one that stays, the same from another step on."""
    events = [[], [TURN, BACK], [TURN], [[4, "turn", 180.0]]]
    path = tmp_path / "family.json"
    entries = [{"events": found, "rent_price": 0.01} for found in events]
    path.write_text(json.dumps({"visible": [], "train": entries[:2], "test": entries[2:]}), encoding="utf-8")
    return {**SETTINGS, "instances": str(path)}


def losses(family, instances):
    """Training loss in each step of rows with one seed that wait, ``[T, N]``."""
    env = KasminaVectorEnv(len(instances), ID, **family)
    env.reset(seed=[5] * len(instances), options={"instance": instances})
    return np.array([env.step(np.zeros(len(instances), dtype=np.int64))[4]["train_loss"] for _ in range(7)])


def test_networks_are_alike_until_their_own_event_and_apart_from_then_on(family):
    seen = losses(family, [0, 1, 2, 3])
    assert (seen[:3] == seen[:3, :1]).all()
    assert seen[3, 1] == seen[3, 2] != seen[3, 0]
    assert seen[3, 0] == seen[3, 3]
    assert (seen[5:, 1] != seen[5:, 2]).any()


def test_a_row_does_not_feel_the_events_of_others(family):
    whole, alone = losses(family, [0, 1, 2]), losses(family, [0, 0, 0])
    assert np.array_equal(whole[:, 0], alone[:, 0])


def test_the_problem_says_which_change_is_on_when(family):
    problem = make_problem(ID, **family)
    assert [(change.name, change.amount) for change in problem.changes] == [("none", 0.0), ("turn", 180.0)]
    assert problem.change_at[1].tolist() == [0, 0, 0, 1, 1, *[0] * 6]
    assert problem.change_at[2].tolist() == [0, 0, 0, *[1] * 8]


def test_an_episode_that_drifts_goes_on_bit_for_bit_from_a_snapshot(family):
    env = KasminaVectorEnv(2, ID, **family)
    env.reset(seed=0, options={"instance": [1, 2]})
    for _ in range(4):
        env.step([0, 0])
    saved = env.snapshot()
    first = [env.step([0, 0])[:2] for _ in range(4)]
    env.restore(saved)
    assert digest(*first) == digest(*[env.step([0, 0])[:2] for _ in range(4)])


def test_networks_are_tested_on_the_data_as_they_are_at_the_end(family):
    env = KasminaVectorEnv(2, ID, **family)
    env.reset(seed=0, options={"instance": [0, 2]})
    for _ in range(SMALL["horizon"]):
        env.step([0, 0])
    upright, turned = (env.episodes.test_data(row).x for row in (0, 1))
    torch.testing.assert_close(upright.flip(-1).flip(-2), turned, rtol=0, atol=1e-5)


def test_both_engines_see_the_same_changes(family):
    def played(engine):
        env = KasminaVectorEnv(4, ID, engine=engine, **family)
        env.reset(seed=0, options={"instance": [0, 1, 2, 3]})
        return np.array([env.step([0] * 4)[0] for _ in range(SMALL["horizon"] - 1)]), env

    (fused, env), (torch_ones, _) = played("fused"), played("torch")
    assert env.engine_reason == ""
    np.testing.assert_allclose(fused, torch_ones, atol=2e-3)


@pytest.mark.parametrize(
    "events",
    [[[0, "turn", 1.0]], [[3, "turn"]], [TURN, [3, "none", 0.0]], [["3", "turn", 1.0]], 7],
)
def test_events_that_cannot_be_are_one_sentence(events, tmp_path):
    path = tmp_path / "family.json"
    path.write_text(
        json.dumps({"visible": [], "train": [{"events": events}], "test": [{"events": []}]}), encoding="utf-8"
    )
    with pytest.raises(ValueError, match=r"^`events` must be"):
        make_problem(ID, **{**SETTINGS, "instances": str(path)})


def test_what_would_happen_beyond_the_horizon_does_not(family):
    assert make_problem(ID, **{**family, "horizon": 4}).change_at.tolist()[1:] == [
        [0, 0, 0, 1, 1],
        [0, 0, 0, 1, 1],
        [0] * 5,
    ]


def test_events_are_drawn_as_their_shares_say():
    changes = [["turn", 30.0, 0.1], ["mirror", 0.0, 0.7]]
    drift = {"changes": changes, "start": [4, 20], "length": [5, 15], "end": 40, "none": 0.2, "twice": 0.5}
    drawn = draw_family({"events": {"drift": drift}}, 2000, seed=0)
    events = [entry["events"] for entry in drawn]
    assert np.mean([not found for found in events]) == pytest.approx(0.2, abs=0.03)
    assert all(4 <= found[0][0] <= 20 and found[-1][0] < 40 for found in events if found)
    assert {found[0][1] for found in events if found} == {"turn", "mirror"}
    for name, _, lasting in changes:
        ends = [len(found) > 1 for found in events if found and found[0][1] == name]
        assert np.mean(ends) == pytest.approx(1 - lasting, abs=0.05)
