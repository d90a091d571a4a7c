"""The table of a comparison: arms in figures, ranked by return, and what each does most often; written as data."""

from __future__ import annotations

import csv
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from kasmina_env.comparison.arms import Arm, is_learned
from kasmina_env.comparison.statistics import (
    Estimate,
    bootstrap,
    interquartile_mean,
    paired_difference,
    probability_of_improvement,
    share_of_gap,
)
from kasmina_env.comparison.validation import write_samples
from kasmina_env.controllers.policy import CONTROLS
from kasmina_env.controllers.schedule import schedule_in_words
from kasmina_env.episode.actions import ActionTable
from kasmina_env.episode.problem import Problem
from kasmina_env.lifecycle.state import Op
from kasmina_env.settings.presets import changed_settings


@dataclass(frozen=True)
class Row:
    """One line of the table. Arms are ranked by return: committed score minus first score, minus costs."""

    arm: str
    num_runs: int
    returns_of_runs: tuple[float, ...]  # mean return of each run
    mean_return: Estimate
    iqm_return: float
    score: float
    test_accuracy: float
    param_growth: float
    compute: float
    minus_best: Estimate | None  # difference to the best control; None without controls
    improves: float | None  # probability of improvement over it
    share_of_fixed: float | None  # of the way from wait to the best fixed schedule; None without those arms
    shares_of_runs: tuple[float | None, ...]  # the same of each run
    gap_closed: float | None  # of the way from the best fixed schedule to the oracle
    prune_share: float
    illegal: int


def best_control(arms: Sequence[Arm]) -> Arm | None:
    """The control with the best mean return; upper references and learned controllers are none to beat."""
    controls = [arm for arm in arms if arm.name in CONTROLS and not is_learned(arm)]
    controls = [arm for arm in controls if not CONTROLS.get(arm.name).is_bound]
    return max(controls, key=lambda arm: arm.column("returns").mean(), default=None)


def table(arms: Sequence[Arm], actions: ActionTable) -> tuple[list[Row], str | None]:
    """Summarise arms, best first; and name the best control.

    Args:
        arms: Episodes of all arms.
        actions: Flat actions of the problem.
    """
    best = best_control(arms)
    means = {arm.name: float(arm.column("returns").mean()) for arm in arms}
    rows = [_row(arm, best, means, actions) for arm in arms]
    return sorted(rows, key=lambda row: -row.mean_return.value), None if best is None else best.name


def _row(arm: Arm, best: Arm | None, means: Mapping[str, float], actions: ActionTable) -> Row:
    returns, strata, rng = arm.column("returns"), arm.runs[0].instances, np.random.default_rng(0)
    taken = arm.column("actions").ravel().astype(np.int64)
    ops = actions.op[taken[taken >= 0]]

    def share(value: float, low: str, high: str) -> float | None:
        return share_of_gap(value, means[low], means[high]) if low in means and high in means else None

    of_runs = tuple(float(value) for value in returns.mean(axis=1))
    return Row(
        arm=arm.name,
        num_runs=len(arm.runs),
        returns_of_runs=of_runs,
        mean_return=bootstrap(returns, rng, strata),
        iqm_return=interquartile_mean(returns),
        score=float(arm.column("scores").mean()),
        test_accuracy=float(arm.column("test_accuracies").mean()),
        param_growth=float(arm.column("param_growths").mean()),
        compute=float(arm.column("computes").mean()),
        minus_best=None if best is None else paired_difference(returns, best.column("returns"), rng, strata),
        improves=None if best is None else probability_of_improvement(returns, best.column("returns")),
        share_of_fixed=share(means[arm.name], "wait", "fixed"),
        shares_of_runs=tuple(share(value, "wait", "fixed") for value in of_runs),
        gap_closed=share(means[arm.name], "fixed", "oracle"),
        prune_share=float((ops == Op.PRUNE).mean()) if len(ops) else 0.0,
        illegal=int(arm.column("illegal").sum()),
    )


def favourites(arm: Arm, table: ActionTable, count: int = 3) -> list[tuple[int, str]]:
    """The most common action sequences of an arm, each with how many episodes followed it."""
    sequences = Counter(tuple(int(a) for a in row) for run in arm.runs for row in run.actions)
    return [(times, schedule_in_words(actions, table)) for actions, times in sequences.most_common(count)]


def write(out: Path, problem: Problem, rows: Sequence[Row], arms: Sequence[Arm], best: str | None) -> None:
    """Write comparison.json (table and favourite schedules), episodes.csv (every episode), and logs of some of them."""
    out.mkdir(parents=True, exist_ok=True)
    summary = {
        "id": problem.id,
        "settings": changed_settings(problem.id, problem.config),
        "seeds": [int(arms[0].runs[0].seeds[0]), int(arms[0].runs[0].seeds[-1])],
        "best_control": best,
        "rows": [asdict(row) for row in rows],
        "favourites": {arm.name: favourites(arm, problem.actions) for arm in arms},
        "samples": write_samples(out, {arm.name: arm.logs for arm in arms}),
    }
    (out / "comparison.json").write_text(json.dumps(summary, indent=2) + "\n", encoding="utf-8")
    fields = ("seeds", "instances", "returns", "scores", "test_accuracies", "param_growths", "computes", "illegal")
    with (out / "episodes.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["arm", "run", *fields, "settings"])
        settings = json.dumps(changed_settings(problem.id, problem.config))
        for arm in arms:
            for number, run in enumerate(arm.runs):
                columns = [getattr(run, field).tolist() for field in fields]
                writer.writerows([arm.name, number, *values, settings] for values in zip(*columns, strict=True))
