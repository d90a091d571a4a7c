"""The page of a comparison, on episodes made up by hand."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from kasmina_env.comparison.arms import Arm
from kasmina_env.comparison.results import COLUMNS, groups_of, learned, page
from kasmina_env.comparison.table import table
from kasmina_env.settings.instances import Instances
from tests.comparison.test_arms import ARMS, GROW, PROBLEM, PRUNE, TABLE, episodes

FAMILY = Instances(
    num_train=2,
    numbers={"param_price": np.array([0.1, 0.2, 0.3]), "rent_price": np.ones(3)},
    host_settings=({"kernels": (1, 1)}, {"kernels": (3, 1)}, {"kernels": (3, 1)}),
    events=((), (), ()),
    visible={"param_price": np.array([0.1, 0.2, 0.3])},
    ranges={"param_price": (0.1, 0.3)},
)


def written(arms, instances=PROBLEM.instances) -> str:
    rows, best = table(arms, TABLE)
    return page("kasmina compare X", replace(PROBLEM, instances=instances), rows, arms, best)


def test_a_page_has_the_command_and_a_line_for_every_arm():
    text = written(ARMS)
    assert "`kasmina compare X`" in text
    lines = [line for line in text.splitlines() if line.startswith("| ")]
    assert [len(line.split(" | ")) for line in lines] == [len(COLUMNS)] * (2 + len(ARMS))
    assert [line.split()[1] for line in lines[2:]] == ["oracle", "lookahead", "mine", "fixed", "wait", "random"]


def test_a_page_says_what_learned_arms_and_the_best_control_do():
    text = written([*ARMS[:2], Arm("mine", [episodes([0.5, 0.5, 0.5, 0.5], actions=(GROW, 0))])])
    assert f"  - 4 of 4: 0: {TABLE.names[GROW]}" in text
    assert "- **fixed**\n  - 4 of 4: WAIT throughout" in text
    assert "**wait**" not in text


def test_an_arm_of_several_runs_is_shown_run_by_run():
    together = written(ARMS)
    assert "* mine, run by run: return, and how far from wait to fixed: 0.650 (137.5%), 0.550 (112.5%)." in together
    alone = written([arm for arm in ARMS if arm.name == "mine"])
    assert "* mine, run by run: return: 0.650, 0.550." in alone


def test_instances_are_grouped_by_everything_in_which_they_differ():
    groups = groups_of(FAMILY, np.arange(3))
    assert list(groups) == ["kernels", "param_price"]
    assert groups["kernels"]["(3, 1)"].tolist() == [False, True, True]
    bands = np.stack(list(groups["param_price"].values()))
    assert bands.sum(axis=0).tolist() == [1, 1, 1]
    assert bands.sum(axis=1).tolist() == [1, 1, 1]


def test_in_a_family_returns_are_broken_down_by_what_instances_settle():
    arms = [Arm("wait", [episodes([0.0, 0.2, 0.4], instances=[0, 1, 2])])]
    arms += [Arm("static_final", [episodes([0.5, 0.6, 0.8], actions=(GROW, PRUNE), instances=[0, 1, 2], kept=2)])]
    arms += [Arm("mine", [episodes([0.5, 0.6, 0.8], instances=[0, 1, 2], kept=kept) for kept in (0, 1)])]
    text = written(arms, FAMILY)
    assert "| kernels | (3, 1) | 0.700, 2.0 seeds | 0.700, 0.5 seeds |" in text  # given seeds are no actions


def test_arms_that_are_no_controls_are_learned():
    assert [arm.name for arm in learned(ARMS)] == ["mine"]


def test_differences_are_written_with_their_intervals():
    arms = [Arm(arm.name, [*arm.runs, *arm.runs[:1]] if arm.name == "mine" else arm.runs) for arm in ARMS]
    (line,) = [line for line in written(arms).splitlines() if line.startswith("| mine ×3")]
    difference, half_width = line.split(" | ")[COLUMNS.index("− best")].split(" ± ")
    assert float(difference) == pytest.approx(0.117, abs=1e-3)
    assert float(half_width) > 0
