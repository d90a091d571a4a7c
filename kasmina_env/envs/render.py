"""Episodes as text and as pictures; the rules of the lifecycle as text."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from kasmina_env.episode.problem import Problem
from kasmina_env.episode.state import EpisodeState
from kasmina_env.lifecycle.transitions import ARGUMENT_RULES, GUARDS, TRANSITIONS, LifecycleRules, Op, Stage
from kasmina_env.settings.config import Operator

if TYPE_CHECKING:
    from matplotlib.axes import Axes

RENDER_MODES = ("ansi", "rgb_array")
RENDER_FPS = 4
BAR = 20  # characters
STAGE_COLOURS = {  # colour-blind safe (Okabe & Ito)
    Stage.TRAINING: "#E69F00",
    Stage.BLENDING: "#56B4E9",
    Stage.HOLDING: "#0072B2",
    Stage.FOSSILIZED: "#009E73",
    Stage.EMBARGOED: "#BBBBBB",
}
OPERATION_MARKS = {Op.GERMINATE: "^", Op.ADVANCE: ">", Op.SET_ALPHA_TARGET: "d", Op.PRUNE: "x", Op.FOSSILIZE: "*"}


def render(problem: Problem, state: EpisodeState, row: int, mode: str) -> str | NDArray[np.uint8]:
    """A picture or panel of one network in the given mode, "ansi" or "rgb_array"."""
    return render_text(problem, state, row) if mode == "ansi" else render_picture(problem, state, row)


# ── text ────────────────────────────────────────────────────────────────────────────────────────


def _bar(value: float) -> str:
    filled = round(BAR * min(max(value, 0.0), 1.0))
    return "█" * filled + "·" * (BAR - filled)


def render_text(problem: Problem, state: EpisodeState, row: int) -> str:
    """A compact panel of one network: figures on top, one line per slot below."""
    config, costs, lifecycle = problem.config, problem.costs, state.lifecycle
    action = state.history.actions[row, state.step[row] - 1] if state.step[row] else 0
    taken = problem.actions.names[action] if action >= 0 else "not in the table"
    remark = "" if state.is_legal[row] else "  (not legal: counts as WAIT)"
    lines = [
        f"step {state.step[row]:>3}/{config.horizon}   score {state.score[row]:+.3f}   "
        f"train loss {state.now.train_loss[row]:.3f}" + _troubles(state, row),
        f"accuracy {_bar(state.now.accuracy[row])} {state.now.accuracy[row]:.3f}   best {state.best_accuracy[row]:.3f}",
        f"growth   parameters +{costs.param_growth(lifecycle)[row]:.0%}, "
        f"compute +{costs.compute_growth(lifecycle)[row]:.0%}, "
        f"rent paid {problem.instances.numbers['rent_price'][state.instance[row]] * state.compute_spent[row]:.4f}",
        f"action   {taken}{remark}",
    ]
    for slot, name in enumerate(problem.slot_names):
        stage = Stage(int(lifecycle.stage[row, slot]))
        line = f"{name:<9}{_bar(lifecycle.alpha.value[row, slot])} {stage.name:<10} "
        line += _seed_name(problem, state, row, slot)
        if lifecycle.has_seed[row, slot]:
            line += f", age {lifecycle.age[row, slot]}"
        if state.now.seeds.has_contribution[row, slot]:
            line += f", contribution {state.now.seeds.contribution[row, slot]:+.3f}"
        lines.append(line.rstrip())
    return "\n".join(lines)


def _troubles(state: EpisodeState, row: int) -> str:
    """Rollbacks and death of a network; empty for most."""
    rollbacks = state.record.num_rollbacks[row]
    return (f"   rollbacks {rollbacks}" if rollbacks else "") + ("   NETWORK DIED" if state.is_dead[row] else "")


def _seed_name(problem: Problem, state: EpisodeState, row: int, slot: int) -> str:
    """Blueprint and operator of a seed; empty where there is none."""
    lifecycle = state.lifecycle
    if not lifecycle.has_seed[row, slot]:
        return ""
    blueprint = problem.config.blueprints[lifecycle.blueprint[row, slot]]
    return f"{blueprint} {Operator(int(lifecycle.operator[row, slot])).name}"


# ── pictures ────────────────────────────────────────────────────────────────────────────────────


def render_picture(problem: Problem, state: EpisodeState, row: int) -> NDArray[np.uint8]:
    """The episode so far, ``[400, 640, 3]``: accuracy and score on top, below them one lane per slot.

    A lane's colour is the stage, its filled height the alpha; operations are marked where they were asked for.
    Needs matplotlib (extra ``plot``); no display.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError('`render_mode` "rgb_array" needs matplotlib. Install kasmina-env[plot].') from error
    figure = Figure(figsize=(6.4, 4.0), dpi=100)
    canvas = FigureCanvasAgg(figure)
    ratios = [3.0] + [1.0] * problem.num_slots
    axes = figure.subplots(1 + problem.num_slots, 1, sharex=True, height_ratios=ratios)
    figure.subplots_adjust(left=0.13, right=0.98, top=0.9, bottom=0.1, hspace=0.15)
    _draw_curves(axes[0], problem, state, row)
    for slot in range(problem.num_slots):
        _draw_lane(axes[1 + slot], problem, state, row, slot)
    axes[-1].set_xlabel("step", fontsize=8)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()


def _draw_curves(ax: Axes, problem: Problem, state: EpisodeState, row: int) -> None:
    steps = np.arange(state.step[row] + 1)
    ax.plot(steps, state.history.accuracy[row, steps], color="#0072B2", label="accuracy (inner_valid)")
    ax.plot(steps, state.history.score[row, steps], color="#D55E00", label="score")
    ax.set(xlim=(0, problem.config.horizon), ylim=(min(0.0, float(state.history.score[row].min())), 1.0))
    title = f"step {state.step[row]}   score {state.score[row]:+.3f}   accuracy {state.now.accuracy[row]:.3f}"
    ax.set_title(title, fontsize=9, loc="left")
    ax.legend(loc="upper left", fontsize=7, frameon=False)
    ax.tick_params(labelsize=7)


def _draw_lane(ax: Axes, problem: Problem, state: EpisodeState, row: int, slot: int) -> None:
    history = state.history
    steps = np.arange(1, state.step[row] + 1)
    stages, alphas = history.stage[row, steps, slot], history.alpha[row, steps, slot]
    for stage, colour in STAGE_COLOURS.items():
        is_here = stages == stage
        if is_here.any():  # one polygon, not a bar for each step: a quarter of the time
            for height, opacity in ((is_here.astype(float), 0.25), (np.where(is_here, alphas, 0.0), 1.0)):
                outline = np.append(height, 0.0)
                ax.fill_between(np.arange(len(outline)), outline, step="post", color=colour, alpha=opacity, linewidth=0)
    _mark_operations(ax, problem, state, row, slot)
    ax.set(ylim=(0, 1), yticks=[])
    label = f"{problem.slot_names[slot]}\n{_seed_name(problem, state, row, slot)}".replace(" ", "\n")
    ax.set_ylabel(label, fontsize=7, rotation=0, ha="right", va="center")
    ax.tick_params(labelsize=7)


def _mark_operations(ax: Axes, problem: Problem, state: EpisodeState, row: int, slot: int) -> None:
    taken = state.history.actions[row, : state.step[row]]
    options: dict[str, Any] = {"linestyle": "none", "color": "black", "markersize": 4, "clip_on": False}
    for op, mark in OPERATION_MARKS.items():
        is_here = (problem.actions.op[taken] == op) & (problem.actions.slot[taken] == slot) & (taken >= 0)
        steps = np.flatnonzero(is_here)
        ax.plot(steps + 0.5, np.full(len(steps), 0.5), marker=mark, **options)


def rules_table(rules: LifecycleRules) -> list[tuple[str, str, str, str, str]]:
    """The lifecycle in words: rows (stage, operation, next stage, requirements, meaning)."""
    table = [("any", Op.WAIT.name, "unchanged", "", "The controller changes nothing.")]
    values = dataclasses.asdict(rules)
    for row in TRANSITIONS:
        words = [GUARDS[name].words.format(**values) for name in row.guards]
        words += [rule.words for rule in ARGUMENT_RULES if row.cause in rule.ops]
        cause = "tick" if row.cause is None else row.cause.name
        table.append((row.stage.name, cause, row.next_stage.name, ", ".join(words), row.words))
    return table
