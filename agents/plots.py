"""Pictures of a comparison."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes

from agents.evaluate import Arm, Row
from agents.policy import Names

# Colour-blind safe (Okabe & Ito); the learned controller is the one that stands out.
COLOURS = {"learned": "#D55E00", "fixed": "#0072B2", "plateau": "#009E73", "random": "#CC79A7", "wait": "#777777"}
STEPS_SHOWN = {"GERMINATE": "#0072B2", "ADVANCE": "#56B4E9", "FOSSILIZE": "#D55E00", "PRUNE": "#CC79A7"}


def plot_comparison(
    path: Path, preset: str, arms: Sequence[Arm], rows: Sequence[Row], names: Names, runs: Sequence[Path] = ()
) -> None:
    """One picture: what every arm earned, how the score rose, what it cost, and what was done when."""
    figure, axes = plt.subplots(2, 2, figsize=(11, 7.5), layout="constrained")
    _plot_returns(axes[0, 0], rows)
    _plot_scores(axes[0, 1], arms, names)
    _plot_costs(axes[1, 0], rows)
    _plot_operations(axes[1, 1], next((arm for arm in arms if arm.name == "learned"), arms[-1]), names)
    episodes = len(arms[0].runs[0])
    figure.suptitle(f"{preset}: {episodes} held-out episodes, the same for every controller", fontsize=13)
    figure.savefig(path, dpi=110)
    plt.close(figure)
    if runs:
        plot_training(path.with_name("training.png"), preset, runs, rows)


def _colour(name: str) -> str:
    return COLOURS.get(name, "#444444")


def _plot_returns(ax: Axes, rows: Sequence[Row]) -> None:
    for position, row in enumerate(reversed(rows)):
        estimate = row.mean_return
        ax.barh(position, estimate.value, color=_colour(row.arm), alpha=0.85)
        ax.plot([estimate.low, estimate.high], [position, position], color="black", linewidth=1.5)
        ax.text(max(estimate.high, 0) + 0.01, position, f"{estimate.value:.3f}", va="center", fontsize=9)
    ax.set_yticks(range(len(rows)), [row.arm for row in reversed(rows)])
    ax.margins(x=0.12)
    ax.set(title="Return: what is kept minus what it cost", xlabel="mean return, 95 % interval")


def _plot_scores(ax: Axes, arms: Sequence[Arm], names: Names) -> None:
    for arm in arms:
        curves = arm.column("curves").reshape(-1, names.horizon + 1)
        low, middle, high = np.nanpercentile(curves, [25, 50, 75], axis=0)
        steps = np.arange(names.horizon + 1)
        ax.plot(steps, middle, color=_colour(arm.name), label=arm.name, linewidth=2 if arm.name == "learned" else 1.3)
        ax.fill_between(steps, low, high, color=_colour(arm.name), alpha=0.15, linewidth=0)
    ax.legend(frameon=False, fontsize=9)
    ax.set(title="Score while the network trains and grows", xlabel="step", ylabel="score, median and quartiles")


def _plot_costs(ax: Axes, rows: Sequence[Row]) -> None:
    for number, row in enumerate(sorted(rows, key=lambda row: row.compute)):
        ax.scatter(1 + row.compute, row.test_accuracy, s=40 + 30 * row.param_growth, color=_colour(row.arm), alpha=0.85)
        ax.annotate(
            f"{row.arm} (+{row.param_growth:.1f}×)",
            (1 + row.compute, row.test_accuracy),
            xytext=(0, 11 if number % 2 else -17),  # neighbours do not write over each other
            ha="center",
            textcoords="offset points",
            fontsize=9,
        )
    ax.margins(x=0.3, y=0.15)
    ax.set(
        title="What was kept against what it took",
        xlabel="compute over the host's, mean over the episode",
        ylabel="accuracy on test (area: parameters kept)",
    )


def _plot_operations(ax: Axes, arm: Arm, names: Names) -> None:
    actions = arm.column("actions").reshape(-1, names.horizon)
    ops = np.array([name.split()[0] for name in names.action])
    steps = np.arange(names.horizon)
    bottom = np.zeros(names.horizon)
    for op, colour in STEPS_SHOWN.items():
        share = np.array(
            [np.mean(ops[column[column >= 0]] == op) if (column >= 0).any() else 0 for column in actions.T]
        )
        ax.bar(steps, share, bottom=bottom, color=colour, label=op, width=0.9)
        bottom += share
    ax.legend(frameon=False, fontsize=9, ncols=4, loc="upper center")
    ax.set(title=f"What '{arm.name}' does when (the rest is WAIT)", xlabel="step", ylabel="share of episodes")
    ax.set_ylim(0, 1.12)


def plot_training(path: Path, preset: str, runs: Sequence[Path], rows: Sequence[Row]) -> None:
    """Score of the training episodes over environment steps, one line per run, with the controls' level."""
    figure, ax = plt.subplots(figsize=(7, 4.2), layout="constrained")
    for run in runs:
        lines: list[dict[str, str]] = []
        for log in sorted(run.glob("logs/*/progress.csv")):
            with log.open(newline="") as file:
                lines += [line for line in csv.DictReader(file) if line.get("episode/committed_score")]
        steps = [float(line["time/total_timesteps"]) for line in lines]
        scores = [float(line["episode/committed_score"]) for line in lines]
        ax.plot(steps, scores, color=_colour("learned"), label=run.name)
    for row in rows:
        if row.arm != "learned":
            ax.axhline(row.score, color=_colour(row.arm), linestyle="--", linewidth=1)
            ax.text(0, row.score, f" {row.arm}", color=_colour(row.arm), va="bottom", fontsize=9)
    ax.set(
        title=f"{preset}: learning to grow", xlabel="environment steps", ylabel="committed score of training episodes"
    )
    figure.savefig(path, dpi=110)
    plt.close(figure)
