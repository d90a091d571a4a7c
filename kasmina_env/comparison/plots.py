"""Pictures of a comparison."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from itertools import cycle
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from sklearn.isotonic import isotonic_regression

from kasmina_env.comparison.arms import Arm, is_learned, kind_of
from kasmina_env.comparison.results import learned, settings_in_words
from kasmina_env.comparison.table import Row
from kasmina_env.controllers.policy import CONTROLS
from kasmina_env.episode.problem import Problem
from kasmina_env.lifecycle.state import Op

# Colour-blind safe (Okabe & Ito); the learned controller is the one that stands out.
COLOURS = {
    "fixed": "#0072B2",
    "per_context": "#56B4E9",
    "instant": "#117733",
    "instant_per_context": "#44AA99",
    "static_final": "#882255",
    "reactive": "#332288",
    "plateau": "#009E73",
    "random": "#CC79A7",
    "wait": "#777777",
    "lookahead": "#999933",
    "oracle": "#000000",
}
OTHER, LEARNED = "#AA9988", "#D55E00"
STEPS_SHOWN = {Op.GERMINATE: "#0072B2", Op.ADVANCE: "#56B4E9", Op.FOSSILIZE: "#D55E00", Op.PRUNE: "#CC79A7"}


def plot_comparison(
    out: Path, problem: Problem, arms: Sequence[Arm], rows: Sequence[Row], runs: Sequence[Path] = ()
) -> None:
    """Pictures: comparison.png, profiles.png, pareto.png, and training.png if there are training runs.

    The first shows what every arm earned, how the score rose, how far it is from the best control, and what was done.
    """
    figure, axes = plt.subplots(2, 2, figsize=(11, 7.5), layout="constrained")
    _plot_returns(axes[0, 0], rows)
    _plot_scores(axes[0, 1], arms, problem.horizon)
    _plot_differences(axes[1, 0], rows)
    _plot_operations(axes[1, 1], _shown(arms), problem)
    episodes = len(arms[0].runs[0])
    title = f"{problem.id}: {episodes} {kind_of(arms)} episodes, the same for every controller"
    figure.suptitle("\n".join([title, *filter(None, settings_in_words(problem))]), fontsize=13, wrap=True)
    figure.savefig(out / "comparison.png", dpi=110)
    plt.close(figure)
    plot_profiles(out / "profiles.png", problem.id, arms)
    plot_pareto(out / "pareto.png", problem.id, rows)
    if runs:
        plot_training(out / "training.png", problem.id, runs, rows)


def plot_profiles(path: Path, id: str, arms: Sequence[Arm]) -> None:
    """Performance profiles: the share of episodes whose return is above each value (Agarwal et al. 2021)."""
    figure, ax = plt.subplots(figsize=(8, 5), layout="constrained")
    for arm in arms:
        returns = np.sort(arm.column("returns").ravel())
        above = 1 - np.arange(len(returns) + 1) / len(returns)
        width = 2.2 if is_learned(arm) else 1.3
        ax.step([*returns, returns[-1]], above, where="pre", color=_colour(arm.name), label=arm.name, linewidth=width)
    ax.legend(frameon=False, fontsize=8)
    ax.set(title=f"{id}: performance profiles", xlabel="return", ylabel="share of episodes above it", ylim=(0, 1.02))
    figure.savefig(path, dpi=110)
    plt.close(figure)


def _shown(arms: Sequence[Arm]) -> Arm:
    """The arm whose operations are shown: the best learned one, or the last."""
    return max(learned(arms), key=lambda arm: arm.column("returns").mean(), default=arms[-1])


def _colour(name: str) -> str:
    is_control = name in CONTROLS and not CONTROLS.get(name).is_learned
    return COLOURS.get(name, OTHER if is_control else LEARNED)


def _plot_returns(ax: Axes, rows: Sequence[Row]) -> None:
    for position, row in enumerate(reversed(rows)):
        estimate = row.mean_return
        ax.barh(position, estimate.value, color=_colour(row.arm), alpha=0.85)
        ax.plot([estimate.low, estimate.high], [position, position], color="black", linewidth=1.5)
        ax.text(max(estimate.high, 0) + 0.01, position, f"{estimate.value:.3f}", va="center", fontsize=9)
    ax.set_yticks(range(len(rows)), [row.arm for row in reversed(rows)])
    ax.margins(x=0.2)
    ax.set(title="Return: what is kept minus what it cost", xlabel="mean return, 95 % interval")


def _plot_scores(ax: Axes, arms: Sequence[Arm], horizon: int) -> None:
    for arm in arms:
        curves = arm.column("curves").reshape(-1, horizon + 1)
        low, middle, high = np.nanpercentile(curves, [25, 50, 75], axis=0)
        steps = np.arange(horizon + 1)
        ax.plot(steps, middle, color=_colour(arm.name), label=arm.name, linewidth=1.3 if arm.name in CONTROLS else 2)
        ax.fill_between(steps, low, high, color=_colour(arm.name), alpha=0.15, linewidth=0)
    ax.legend(frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1, 0.5))
    ax.set(title="Score while the network trains and grows", xlabel="step", ylabel="score, median and quartiles")


def _plot_differences(ax: Axes, rows: Sequence[Row]) -> None:
    shown = [(row, row.minus_best) for row in reversed(rows) if row.minus_best is not None]
    for position, (row, estimate) in enumerate(shown):
        ax.plot([estimate.low, estimate.high], [position, position], color=_colour(row.arm), linewidth=2)
        ax.plot(estimate.value, position, "o", color=_colour(row.arm))
    ax.axvline(0, color="black", linewidth=0.8)
    ax.set_xscale("symlog", linthresh=0.05)  # what is close is told apart, what is far off stays in the picture
    limits, ticks = ax.get_xlim(), (-1, -0.3, -0.1, -0.03, 0, 0.03, 0.1, 0.3, 1)
    ax.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    ax.minorticks_off()
    ax.set_xlim(limits)
    ax.set_yticks(range(len(shown)), [row.arm for row, _ in shown])
    ax.set(title="Difference to the best control, same episodes", xlabel="mean return, 95 % interval")


def _plot_operations(ax: Axes, arm: Arm, problem: Problem) -> None:
    actions, ops = arm.column("actions").reshape(-1, problem.horizon).astype(np.int64), problem.actions.op
    steps, bottom = np.arange(problem.horizon), np.zeros(problem.horizon)
    for op, colour in STEPS_SHOWN.items():
        share = np.array(
            [np.mean(ops[column[column >= 0]] == op) if (column >= 0).any() else 0 for column in actions.T]
        )
        ax.bar(steps, share, bottom=bottom, color=colour, label=op.name, width=0.9)
        bottom += share
    ax.legend(frameon=False, fontsize=8, ncols=4, columnspacing=1, loc="upper center")
    ax.set(title=f"What '{arm.name}' does when (the rest is WAIT)", xlabel="step", ylabel="share of episodes")
    ax.set_ylim(0, 1.12)


def plot_pareto(path: Path, preset: str, rows: Sequence[Row]) -> None:
    """Accuracy of what is kept against its parameters, and against the compute it took; lines: nothing is better."""
    figure, axes = plt.subplots(1, 2, figsize=(11, 4.6), layout="constrained", sharey=True)
    for ax, field, label in (
        (axes[0], "param_growth", "parameters kept over the host's"),
        (axes[1], "compute", "compute over the host's, mean over the episode"),
    ):
        points = {row.arm: (1 + getattr(row, field), row.test_accuracy) for row in rows}
        front = pareto_front(list(points.values()))
        ax.step(*zip(*front, strict=True), where="post", color="#bbbbbb", zorder=0)
        for row, marker in zip(rows, _markers(rows), strict=True):
            ax.scatter(*points[row.arm], s=60, color=_colour(row.arm), marker=marker, label=row.arm, zorder=2)
        ax.set(xlabel=label)
    axes[0].set_ylabel("accuracy on test of what is kept")
    axes[1].legend(frameon=False, loc="center left", bbox_to_anchor=(1, 0.5))
    figure.suptitle(f"{preset}: what accuracy costs", fontsize=13)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def _markers(rows: Sequence[Row]) -> list[str]:
    """Circles for controls; learned arms have one colour and differ in shape."""
    shapes = cycle("D^vPX*")
    return ["o" if row.arm in CONTROLS else next(shapes) for row in rows]


def pareto_front(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Points (cost, quality) that no other point beats in both, cheapest first."""
    front: list[tuple[float, float]] = []
    for cost, quality in sorted(points, key=lambda point: (point[0], -point[1])):
        if not front or quality > front[-1][1]:
            front.append((cost, quality))
    return front


def apart(levels: Sequence[float], least: float) -> list[float]:
    """Heights of labels: in the order of their levels, at least `least` apart, as near to the levels as possible."""
    if not levels:
        return []
    order = np.argsort(levels, kind="stable")
    spread = least * np.arange(len(levels))
    heights = np.empty(len(levels))
    heights[order] = isotonic_regression(np.asarray(levels)[order] - spread) + spread
    return heights.tolist()


def plot_training(path: Path, preset: str, runs: Sequence[Path], rows: Sequence[Row]) -> None:
    """Score of the training episodes over environment steps, one line per run, with the controls' level.

    Runs of which only the controller is there have no line; without any line there is no picture.
    """
    logs = {run.name: run / "logs" / "progress.csv" for run in runs}
    logs = {name: log for name, log in logs.items() if log.is_file()}
    if not logs:
        return
    figure, ax = plt.subplots(figsize=(7, 4.2), layout="constrained")
    for (name, log), line_style in zip(logs.items(), cycle(("-", "--", ":", "-.")), strict=False):
        with log.open(newline="", encoding="utf-8") as file:
            lines = [line for line in csv.DictReader(file) if line.get("episode/committed_score")]
        steps = [float(line["time/total_timesteps"]) for line in lines]
        scores = [float(line["episode/committed_score"]) for line in lines]
        ax.plot(steps, scores, color=LEARNED, linestyle=line_style, label=name)
    controls = [row for row in rows if row.arm in CONTROLS]
    for row in controls:
        ax.axhline(row.score, color=_colour(row.arm), linestyle="--", linewidth=1)
    low, high = ax.get_ylim()
    for row, height in zip(controls, apart([row.score for row in controls], (high - low) / 22), strict=True):
        beside = ax.get_yaxis_transform()  # x in widths of the axes, y in scores
        ax.text(1.01, height, row.arm, color=_colour(row.arm), va="center", fontsize=9, transform=beside)
    figure.legend(frameon=False, fontsize=8, ncols=5, loc="outside lower center")
    ax.set(
        title=f"{preset}: learning to grow", xlabel="environment steps", ylabel="committed score of training episodes"
    )
    figure.savefig(path, dpi=110)
    plt.close(figure)
