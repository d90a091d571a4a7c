"""Episodes as text and as pictures; the rules of the lifecycle as text."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from kasmina_env.episode.core import Core
from kasmina_env.episode.reward import compute_growth, param_growth
from kasmina_env.lifecycle.transitions import ARGUMENT_RULES, GUARDS, TRANSITIONS, LifecycleRules, Op, Stage

if TYPE_CHECKING:
    from matplotlib.axes import Axes

BAR = 20  # characters
STAGE_COLOURS = {  # colour-blind safe (Okabe & Ito)
    Stage.TRAINING: "#E69F00",
    Stage.BLENDING: "#56B4E9",
    Stage.HOLDING: "#0072B2",
    Stage.FOSSILIZED: "#009E73",
    Stage.EMBARGOED: "#BBBBBB",
}
OPERATION_MARKS = {Op.GERMINATE: "^", Op.ADVANCE: ">", Op.SET_ALPHA_TARGET: "d", Op.PRUNE: "x", Op.FOSSILIZE: "*"}


def render(core: Core, row: int, mode: str) -> str | NDArray[np.uint8]:
    """One network in the given mode, "ansi" or "rgb_array"."""
    return render_text(core, row) if mode == "ansi" else render_picture(core, row)


# ── text ────────────────────────────────────────────────────────────────────────────────────────


def _bar(value: float) -> str:
    filled = round(BAR * min(max(value, 0.0), 1.0))
    return "█" * filled + "·" * (BAR - filled)


def render_text(core: Core, row: int) -> str:
    """A compact panel of one network: figures on top, one line per slot below."""
    view, config = core.view, core.config
    lifecycle = view.lifecycle
    action = view.actions[row, view.step[row] - 1] if view.step[row] else 0
    taken = core.actions.names[action] if action >= 0 else "not in the table"
    remark = "" if view.is_legal[row] else "  (not legal: counts as WAIT)"
    lines = [
        f"step {view.step[row]:>3}/{config.horizon}   score {view.score[row]:+.3f}   "
        f"train loss {view.train_loss[row]:.3f}" + ("   NETWORK DIED" if view.is_dead[row] else ""),
        f"accuracy {_bar(view.accuracy[row])} {view.accuracy[row]:.3f}   best {view.best_accuracy[row]:.3f}",
        f"growth   parameters +{param_growth(view, core.costs)[row]:.0%}, "
        f"compute +{compute_growth(view, core.costs)[row]:.0%}, "
        f"rent paid {core.instances.numbers['rent_price'][view.instance[row]] * view.compute_spent[row]:.4f}",
        f"action   {taken}{remark}",
    ]
    for slot, name in enumerate(core.slot_names):
        stage = Stage(int(lifecycle.stage[row, slot]))
        line = f"{name:<9}{_bar(lifecycle.alpha.value[row, slot])} {stage.name:<10} {_seed_name(core, row, slot)}"
        if lifecycle.has_seed[row, slot]:
            line += f", age {lifecycle.age[row, slot]}"
        if view.facts.has_contribution[row, slot]:
            line += f", contribution {view.facts.contribution[row, slot]:+.3f}"
        lines.append(line.rstrip())
    return "\n".join(lines)


def _seed_name(core: Core, row: int, slot: int) -> str:
    """Blueprint and operator of a seed; empty where there is none."""
    lifecycle = core.view.lifecycle
    if not lifecycle.has_seed[row, slot]:
        return ""
    return f"{core.config.blueprints[lifecycle.blueprint[row, slot]]} {core.operator_name(row, slot)}"


# ── pictures ────────────────────────────────────────────────────────────────────────────────────


def render_picture(core: Core, row: int) -> NDArray[np.uint8]:
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
    ratios = [3.0] + [1.0] * core.num_slots
    axes = figure.subplots(1 + core.num_slots, 1, sharex=True, height_ratios=ratios)
    figure.subplots_adjust(left=0.13, right=0.98, top=0.9, bottom=0.1, hspace=0.15)
    _draw_curves(axes[0], core, row)
    for slot in range(core.num_slots):
        _draw_lane(axes[1 + slot], core, row, slot)
    axes[-1].set_xlabel("step", fontsize=8)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()


def _draw_curves(ax: Axes, core: Core, row: int) -> None:
    view = core.view
    steps = np.arange(view.step[row] + 1)
    ax.plot(steps, view.trace.accuracy[row, steps], color="#0072B2", label="accuracy (inner_valid)")
    ax.plot(steps, view.trace.score[row, steps], color="#D55E00", label="score")
    ax.set(xlim=(0, core.config.horizon), ylim=(min(0.0, float(view.trace.score[row].min())), 1.0))
    title = f"step {view.step[row]}   score {view.score[row]:+.3f}   accuracy {view.accuracy[row]:.3f}"
    ax.set_title(title, fontsize=9, loc="left")
    ax.legend(loc="upper left", fontsize=7, frameon=False)
    ax.tick_params(labelsize=7)


def _draw_lane(ax: Axes, core: Core, row: int, slot: int) -> None:
    view, trace = core.view, core.view.trace
    steps = np.arange(1, view.step[row] + 1)
    stages, alphas = trace.stage[row, steps, slot], trace.alpha[row, steps, slot]
    for stage, colour in STAGE_COLOURS.items():
        is_here = stages == stage
        if is_here.any():  # one polygon, not a bar for each step: a quarter of the time
            for height, opacity in ((is_here.astype(float), 0.25), (np.where(is_here, alphas, 0.0), 1.0)):
                outline = np.append(height, 0.0)
                ax.fill_between(np.arange(len(outline)), outline, step="post", color=colour, alpha=opacity, linewidth=0)
    _mark_operations(ax, core, row, slot)
    ax.set(ylim=(0, 1), yticks=[])
    label = f"{core.slot_names[slot]}\n{_seed_name(core, row, slot)}".replace(" ", "\n")
    ax.set_ylabel(label, fontsize=7, rotation=0, ha="right", va="center")
    ax.tick_params(labelsize=7)


def _mark_operations(ax: Axes, core: Core, row: int, slot: int) -> None:
    taken = core.view.actions[row, : core.view.step[row]]
    options: dict[str, Any] = {"linestyle": "none", "color": "black", "markersize": 4, "clip_on": False}
    for op, mark in OPERATION_MARKS.items():
        is_here = (core.actions.op[taken] == op) & (core.actions.slot[taken] == slot) & (taken >= 0)
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
