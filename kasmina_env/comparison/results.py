"""A comparison as tables for people: in the terminal, and as a Markdown page."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from kasmina_env.comparison.arms import Arm, is_learned, kind_of
from kasmina_env.comparison.statistics import MIN_RUNS, has_strata
from kasmina_env.comparison.table import Row, favourites
from kasmina_env.controllers.policy import CONTROLS
from kasmina_env.episode.actions import ActionTable
from kasmina_env.episode.problem import Problem
from kasmina_env.lifecycle.arrays import BoolArray, FloatArray, IntArray
from kasmina_env.settings.instances import Instances
from kasmina_env.settings.presets import changed_settings

COLUMNS = (
    *("arm", "return", "− best", "P>", "to fixed", "to oracle", "test", "params"),
    *("compute", "IQM", "PRUNE", "illegal"),
)
NUM_FOR_TERMINALS = 8
NUM_BANDS = 3  # number of bands of equal size that a fact is cut into

Groups = Mapping[str, Mapping[str, BoolArray]]  # by fact and value in words: mask of instances [I]


def cells(row: Row) -> tuple[str, ...]:
    """A row of the table in words, in the order of `COLUMNS`; the first `NUM_FOR_TERMINALS` fit a terminal."""
    best = row.minus_best
    return (
        f"{row.arm} ×{row.num_runs}" if row.num_runs > 1 else row.arm,
        f"{row.mean_return.value:.3f} [{row.mean_return.low:.3f}, {row.mean_return.high:.3f}]",
        "" if best is None else f"{best.value:+.3f} ± {best.half_width:.3f}",
        "" if row.improves is None else f"{row.improves:.2f}",
        "" if row.share_of_fixed is None else f"{row.share_of_fixed:.1%}",
        "" if row.gap_closed is None else f"{row.gap_closed:.0%}",
        f"{row.test_accuracy:.3f}",
        f"+{row.param_growth:.0%}",
        f"+{row.compute:.0%}",
        f"{row.iqm_return:.3f}",
        f"{row.prune_share:.1%}",
        str(row.illegal),
    )


def legend(best: str | None, arms: Sequence[Arm]) -> list[str]:
    """Meanings of the columns, given the name of the best control."""
    instances = arms[0].runs[0].instances
    of = "episodes"
    if np.ptp(instances) > 0:
        of += " within these instances" if has_strata(instances) else ", and with them over instances"
    over = f"over {of}"
    if any(len(arm.runs) >= MIN_RUNS for arm in arms):
        over = f"over runs and {of}"
    if any(len(arm.runs) < MIN_RUNS for arm in learned(arms)):
        over += f"; of fewer than {MIN_RUNS} runs over episodes alone, which says nothing about another run"
    controls = [f"{arm.name}: {CONTROLS.get(arm.name).meaning}" for arm in arms if arm.name in CONTROLS]
    return [
        f"{'; '.join(controls)}.",
        f"return: committed score − first score − costs; intervals 95 %, {over}.",
        f"− best, P>: difference to the best control that foresees nothing ({best}), on the same episodes; how often "
        "above it.",
        "to fixed: share of the way from wait to fixed; to oracle: from fixed to oracle.",
        "test: accuracy of what is kept; params: fossilized over the host's; compute: of all seeds over the host's, "
        "mean over the episode.",
        "IQM: interquartile mean of the returns; PRUNE: share of all actions, WAIT included; illegal: actions of all "
        "episodes that were not legal, and counted as WAIT.",
    ]


def settings_in_words(problem: Problem) -> list[str]:
    """Paragraph that names the settings that differ from those of the id; empty if none does."""
    changed = changed_settings(problem.id, problem.config)
    return [f"Settings that differ from those of the id: {json.dumps(changed)}.", ""] if changed else []


def run_by_run(rows: Sequence[Row]) -> list[str]:
    """Where an arm has several runs, what each returned: their spread is what one more run may come to."""
    lines = []
    for row in rows:
        if row.num_runs > 1:
            shares = ["" if share is None else f" ({share:.1%})" for share in row.shares_of_runs]
            runs = [f"{value:.3f}{share}" for value, share in zip(row.returns_of_runs, shares, strict=True)]
            of = "" if row.share_of_fixed is None else ", and how far from wait to fixed"
            lines.append(f"{row.arm}, run by run: return{of}: {', '.join(runs)}.")
    return lines


def learned(arms: Sequence[Arm]) -> list[Arm]:
    """Arms of learned controllers."""
    return [arm for arm in arms if is_learned(arm)]


def groups_of(instances: Instances, played: IntArray) -> Groups:
    """Everything in which the instances of a family differ, cut into a few groups of them.

    Args:
        instances: All I of them.
        played: Numbers of those that were played, which bands of numbers cut into equal parts.
    """
    groups: dict[str, Mapping[str, BoolArray]] = {}
    for name in instances.host_settings[0]:
        words = np.array([str(settings[name]) for settings in instances.host_settings])
        groups[name] = {word: words == word for word in sorted(set(words))}
    if any(instances.events):
        first = np.array([f"{own[0][1]} {own[0][2]:g}" if own else "nothing" for own in instances.events])
        groups["first change"] = {word: first == word for word in sorted(set(first))}
    for name, values in instances.numbers.items():
        if np.ptp(values) > 0:
            groups[name] = _bands(values, values[np.unique(played)])
    return groups


def _bands(values: FloatArray, played: FloatArray) -> dict[str, BoolArray]:
    """Numbers ``[I]`` in bands that cut those played into equal parts."""
    edges = np.quantile(played, np.linspace(0, 1, NUM_BANDS + 1))
    band = np.searchsorted(edges[1:-1], values, side="right")
    return {f"{edges[i]:.3g} to {edges[i + 1]:.3g}": band == i for i in range(NUM_BANDS)}


def _markdown(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    lines = [columns, ["---"] * len(columns), *rows]
    return ["| " + " | ".join(line) + " |" for line in lines]


def _by_group(arms: Sequence[Arm], groups: Groups) -> list[str]:
    """Mean return and seeds kept of each arm in each group of instances."""
    rows = []
    for fact, members in groups.items():
        for word, is_member in members.items():
            row = [fact, word]
            for arm in arms:
                chosen = is_member[arm.runs[0].instances]
                returns, kept = (arm.column(field)[:, chosen] for field in ("returns", "num_fossilized"))
                row.append(f"{returns.mean():.3f}, {kept.mean():.1f} seeds" if chosen.any() else "not played")
            rows.append(row)
    return _markdown(["fact", "value", *(arm.name for arm in arms)], rows)


def _habits(arm: Arm, table: ActionTable) -> list[str]:
    total = sum(len(run) for run in arm.runs)
    lines = [f"{times} of {total}: {schedule}" for times, schedule in favourites(arm, table)]
    return [f"- **{arm.name}**", *(f"  - {line}" for line in lines)]


def page(
    command: str,
    problem: Problem,
    rows: Sequence[Row],
    arms: Sequence[Arm],
    best: str | None,
) -> str:
    """A comparison as Markdown: the table, what learned arms and the best control do, and where each gains and loses.

    Args:
        command: Command line that makes it.
        problem: Problem that was played; in a family, returns are broken down by what its instances settle.
        rows: Rows of the table, best first.
        arms: Episodes of all arms.
        best: Name of the best control that foresees nothing.
    """
    shown = [*(arm for arm in arms if arm.name in (best, "fixed")), *learned(arms)]
    lines = [
        f"## {problem.id}",
        "",
        f"{len(arms[0].runs[0])} {kind_of(arms)} episodes, the same for every arm: `{command}`",
        "",
        *settings_in_words(problem),
    ]
    lines += _markdown(COLUMNS, map(cells, rows))
    lines += [
        "",
        *(f"* {line}" for line in [*run_by_run(rows), *legend(best, arms)]),
        "",
        "What they do most often:",
        "",
    ]
    lines += [line for arm in shown for line in _habits(arm, problem.actions)]
    if problem.is_family:
        lines += [
            "",
            "Where: mean return and number of seeds kept, by what the instances played settle.",
            "",
        ]
        lines += _by_group(shown, groups_of(problem.instances, arms[0].runs[0].instances))
    return "\n".join(lines) + "\n"
