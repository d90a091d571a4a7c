"""Comparing controllers on the same held-out episodes."""

from __future__ import annotations

import csv
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from agents.policy import HELD_OUT, Episodes, Names, Policy, Progress, make_env, names_of, play
from agents.schedule import describe
from agents.statistics import (
    Estimate,
    FloatArray,
    bootstrap,
    interquartile_mean,
    paired_difference,
    probability_of_improvement,
)


@dataclass(frozen=True)
class Arm:
    """What one controller did. A learned one may have several runs, each on the same episodes."""

    name: str
    runs: list[Episodes]

    def column(self, field: str) -> FloatArray:
        """A field of all episodes, ``[runs, episodes]``."""
        return np.stack([getattr(run, field) for run in self.runs])


@dataclass(frozen=True)
class Row:
    """One line of the table. Arms are judged by return: committed score minus first score, minus costs."""

    arm: str
    mean_return: Estimate
    iqm_return: float
    score: float
    test_accuracy: float
    param_growth: float
    compute: float
    share_of_best: float | None  # of the way from wait to the best fixed schedule; None without those arms
    minus_best_control: Estimate
    improves: float  # probability of improvement over the best control
    prune_share: float
    illegal: int


def compare(
    preset: str,
    policies: Mapping[str, Sequence[Policy]],
    num_episodes: int,
    num_envs: int = 64,
    on_step: Progress | None = None,
) -> tuple[list[Arm], Names]:
    """Play the same held-out episodes with every policy.

    Args:
        preset: Registered id.
        policies: Name of an arm to its runs.
        num_episodes: Episodes of each run.
        num_envs: Rows played side by side.
        on_step: For progress bars.
    """
    env = make_env(preset, min(num_envs, num_episodes))
    seeds = HELD_OUT + np.arange(num_episodes)
    arms = [Arm(name, [play(env, policy, seeds, on_step) for policy in runs]) for name, runs in policies.items()]
    return arms, names_of(env)


def table(arms: Sequence[Arm], names: Names, learned: Sequence[str]) -> list[Row]:
    """Summarise arms, best first.

    Args:
        arms: What was played.
        names: Of the environment.
        learned: Names of arms that are not controls.
    """
    rng = np.random.default_rng(0)
    by_name = {arm.name: arm.column("returns") for arm in arms}
    controls = [name for name in by_name if name not in learned] or list(by_name)
    best = max(controls, key=lambda name: by_name[name].mean())
    ends = [by_name[name].mean() for name in ("wait", "fixed") if name in by_name]
    rows = []
    for arm in arms:
        returns = by_name[arm.name]
        ops = Counter(names.action[int(a)].split()[0] for a in arm.column("actions").ravel() if a >= 0)
        share = float((returns.mean() - ends[0]) / (ends[1] - ends[0])) if len(ends) == 2 else None
        rows.append(
            Row(
                arm=arm.name,
                mean_return=bootstrap(returns, lambda sample: float(sample.mean()), rng),
                iqm_return=interquartile_mean(returns),
                score=float(arm.column("scores").mean()),
                test_accuracy=float(arm.column("test_accuracies").mean()),
                param_growth=float(arm.column("param_growths").mean()),
                compute=float(arm.column("computes").mean()),
                share_of_best=share,
                minus_best_control=paired_difference(returns, by_name[best], rng),
                improves=probability_of_improvement(returns, by_name[best]),
                prune_share=ops["PRUNE"] / max(ops.total(), 1),
                illegal=int(arm.column("illegal").sum()),
            )
        )
    return sorted(rows, key=lambda row: -row.mean_return.value)


def favourites(arm: Arm, names: Names, count: int = 3) -> list[tuple[int, str]]:
    """The most common action sequences of an arm, each with how many episodes followed it."""
    sequences = Counter(tuple(int(a) for a in row) for run in arm.runs for row in run.actions)
    return [(times, describe(actions, names)) for actions, times in sequences.most_common(count)]


def write(out: Path, preset: str, rows: Sequence[Row], arms: Sequence[Arm], names: Names) -> None:
    """Write comparison.json (table and favourite schedules) and episodes.csv (every episode)."""
    out.mkdir(parents=True, exist_ok=True)
    summary = {
        "id": preset,
        "held_out_seeds": [HELD_OUT, HELD_OUT + len(arms[0].runs[0]) - 1],
        "rows": [asdict(row) for row in rows],
        "favourites": {arm.name: favourites(arm, names) for arm in arms},
    }
    (out / "comparison.json").write_text(json.dumps(summary, indent=2) + "\n")
    fields = ("seeds", "returns", "scores", "test_accuracies", "param_growths", "computes", "illegal")
    with (out / "episodes.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["arm", "run", *fields])
        for arm in arms:
            for number, run in enumerate(arm.runs):
                columns = [getattr(run, field).tolist() for field in fields]
                writer.writerows([arm.name, number, *values] for values in zip(*columns, strict=True))
