"""Comparing controllers on the same held-out episodes."""

from __future__ import annotations

import csv
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from kasmina_env.comparison.episode_log import EpisodeLog, log_of
from kasmina_env.comparison.players import Player, Swapped, find_player
from kasmina_env.comparison.statistics import (
    Estimate,
    bootstrap,
    interquartile_mean,
    paired_difference,
    probability_of_improvement,
    share_of_gap,
)
from kasmina_env.comparison.validation import NUM_SAMPLES, write_samples
from kasmina_env.controllers.halving import NUM_ROWS_OF_WORKER
from kasmina_env.controllers.policy import (
    CONTROLS,
    FIRST_SEEDS,
    HELD_OUT,
    OnStep,
    Played,
    instances_in_turn,
    play,
)
from kasmina_env.controllers.schedule import schedule_in_words
from kasmina_env.envs.workers import ALONE, Workers
from kasmina_env.episode.actions import ActionTable
from kasmina_env.episode.problem import Problem, make_problem
from kasmina_env.lifecycle.arrays import FloatArray
from kasmina_env.lifecycle.state import Op
from kasmina_env.population import ENGINES
from kasmina_env.settings.presets import changed_settings


@dataclass(frozen=True)
class Arm:
    """Episodes of one controller. A learned one may have several runs, each on the same episodes."""

    name: str
    runs: list[Played]
    logs: list[list[EpisodeLog]] = field(default_factory=list)  # of the first episodes of each run

    def column(self, field: str) -> FloatArray:
        """A field of all episodes, ``[runs, episodes]``."""
        return np.stack([getattr(run, field) for run in self.runs])


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


def compare_arms(
    preset: str,
    players: Mapping[str, Sequence[str]],
    num_episodes: int,
    num_envs: int = 64,
    on_step: OnStep | None = None,
    split: str = "test",
    without: Sequence[str] = (),
    workers: Workers = ALONE,
    **settings: Any,
) -> list[Arm]:
    """Play the same episodes with every policy; in families, the instances of the split in turn.

    Args:
        preset: Registered id.
        players: Runs of each arm, by its name. A run is the name of a control, or the folder of a training run.
        num_episodes: Number of episodes of each run.
        num_envs: Number of episodes played side by side; more if that is too few for the workers.
        on_step: Callback for progress bars.
        split: "test" for held-out seeds and test instances; "train" for choosing training settings.
        without: Groups of features, names in `kasmina_env.settings.config.SIGNALS`. For each of them every learned arm
            plays once more, with their values taken from another episode.
        workers: Workers over which to spread the episodes.
        **settings: Fields of `EnvConfig` that differ from the preset.
    """
    seeds = FIRST_SEEDS[split] + np.arange(num_episodes)
    problem = make_problem(preset, **settings)
    instances = instances_in_turn(problem, seeds, split)
    found = {name: [find_player(run, preset, **settings) for run in runs] for name, runs in players.items()}
    for name, runs in found.items():
        for player in runs:
            if _decisions_of(player.problem) != _decisions_of(problem):
                raise ValueError(
                    f"`{name}` must decide among the actions of {preset} at each of its {problem.horizon} steps, but "
                    "brings settings that differ. Leave it out."
                )

    for group in without:
        for name in [name for name in players if _is_learned(name)]:
            found[f"{name} without {group}"] = [_swapped(player, group) for player in found[name]]
    num_rows = min(max(num_envs, NUM_ROWS_OF_WORKER * workers.number), num_episodes)

    def played(player: Player) -> tuple[Played, list[EpisodeLog]]:
        with closing(workers.make_env(num_rows, player.problem)) as env:
            run = play(env, player.policy, seeds, on_step, instances, player.planted)
            return run, _logs_of(run, player, ENGINES[int(env.episodes.report.engine[0])], env.num_envs)

    arms = {name: [played(player) for player in runs] for name, runs in found.items()}
    return [Arm(name, *map(list, zip(*runs, strict=True))) for name, runs in arms.items()]


def num_runs(players: Mapping[str, Sequence[str]], without: Sequence[str] = ()) -> int:
    """Number of runs that `compare_arms` plays: those of learned arms come again for each group left out."""
    learned = [len(runs) for name, runs in players.items() if _is_learned(name)]
    return sum(map(len, players.values())) + len(without) * sum(learned)


def _logs_of(run: Played, player: Player, engine: str, num_networks: int) -> list[EpisodeLog]:
    """Logs of the first episodes of a run."""
    logs = []
    for episode in range(min(NUM_SAMPLES, len(run))):
        actions = run.actions[episode][run.actions[episode] >= 0]
        log = log_of(
            problem=player.problem,
            engine=engine,
            num_networks=num_networks,
            seed=run.seeds[episode],
            instance=run.instances[episode],
            planted=() if player.planted is None else player.planted,
            actions=actions,
            scores=run.curves[episode][: len(actions) + 1],
        )
        logs.append(log)
    return logs


def _decisions_of(problem: Problem) -> tuple[int, tuple[str, ...]]:
    """Number of decisions in an episode, and names of the actions to choose from."""
    return problem.horizon, problem.actions.names


def kind_of(arms: Sequence[Arm]) -> str:
    """The word "held-out" or "training" for the episodes of a comparison."""
    return "held-out" if arms[0].runs[0].seeds[0] >= HELD_OUT else "training"


def is_learned(arm: Arm) -> bool:
    """Whether an arm is a learned controller: a training run, or one that comes with the package."""
    return _is_learned(arm.name)


def _is_learned(name: str) -> bool:
    return name not in CONTROLS or CONTROLS.get(name).is_learned


def _swapped(player: Player, group: str) -> Player:
    return replace(player, policy=Swapped(player.policy, player.problem.observations.columns(group)))


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
