"""Episodes as pictures: the network as it is, and beside it all that was measured and done so far."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from kasmina_env.episode.episodes import Episodes
from kasmina_env.episode.problem import Problem
from kasmina_env.episode.state import EpisodeState
from kasmina_env.lifecycle.state import Op, Stage
from kasmina_env.networks.grown import GrownNetwork
from kasmina_env.settings.config import Operator
from kasmina_env.tasks import Split

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

STAGE_COLOURS = {  # colour-blind safe (Okabe & Ito)
    Stage.TRAINING: "#E69F00",
    Stage.BLENDING: "#56B4E9",
    Stage.HOLDING: "#0072B2",
    Stage.FOSSILIZED: "#009E73",
    Stage.EMBARGOED: "#BBBBBB",
}
MARKS = {Op.GERMINATE: "^", Op.ADVANCE: ">", Op.SET_ALPHA_TARGET: "d", Op.PRUNE: "x", Op.FOSSILIZE: "*"}
HOST, EMPTY, TEXT = "#D9D9D9", "#FFFFFF", "#333333"
SIZE, DPI = (9.6, 5.4), 100  # inches, dots per inch
GRID = 60  # points along each axis of a decision boundary

# Function that returns the network of a row, and the samples it is tested on.
Look = Callable[[], tuple[GrownNetwork, Split]]


def look_at(episodes: Episodes, row: int) -> Look:
    """A `Look` at one row; the network is made only where a picture shows it."""
    return lambda: (episodes.network(row), episodes.test_data(row))


def render_picture(problem: Problem, state: EpisodeState, row: int, look: Look) -> NDArray[np.uint8]:
    """One network and its episode so far, ``[540, 960, 3]``.

    On the left the network: the host in grey, and each slot with its seed, coloured by stage and filled up to its
    alpha; for samples of two numbers the decision boundary above it. On the right accuracy and score, shaded while the
    data have changed, and one lane per slot: the colour is the stage, the filled height the alpha, and operations are
    marked where they were asked for. Needs matplotlib (extra ``plot``); no display.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError('`render_mode` "rgb_array" needs matplotlib. Install kasmina-env[plot].') from error
    figure = Figure(figsize=SIZE, dpi=DPI)
    canvas = FigureCanvasAgg(figure)
    figure.text(0.02, 0.945, _title(problem, state, row), fontsize=11, color=TEXT)
    figure.text(0.02, 0.9, _caption(problem, state, row), fontsize=10, color=TEXT, family="monospace")
    _draw_network(figure, problem, state, row, look)
    ratios = [2.4] + [1.0] * problem.num_slots
    grid = figure.add_gridspec(
        1 + problem.num_slots, 1, height_ratios=ratios, left=0.46, right=0.98, top=0.85, bottom=0.16, hspace=0.15
    )
    curves = figure.add_subplot(grid[0])
    _draw_curves(curves, problem, state, row)
    for slot in range(problem.num_slots):
        lane = figure.add_subplot(grid[1 + slot], sharex=curves)
        _draw_lane(lane, problem, state, row, slot)
        lane.tick_params(labelbottom=slot == problem.num_slots - 1)
    curves.tick_params(labelbottom=False)
    figure.text(0.72, 0.095, "step", fontsize=8, ha="center", color=TEXT)
    _draw_legend(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()


def _title(problem: Problem, state: EpisodeState, row: int) -> str:
    figures = f"score {state.score[row]:+.3f}, accuracy {state.now.accuracy[row]:.3f}"
    return f"{problem.id}   step {state.step[row]} of {problem.horizon}   {figures}{troubles(state, row)}"


def _caption(problem: Problem, state: EpisodeState, row: int) -> str:
    """The last action, in words."""
    action = state.history.actions[row, state.step[row] - 1] if state.step[row] else 0
    taken = problem.actions.names[action] if action >= 0 else "not in the table"
    return taken if state.is_legal[row] else f"{taken} (not legal: counts as WAIT)"


# ── the network ─────────────────────────────────────────────────────────────────────────────────


def _draw_network(figure: Figure, problem: Problem, state: EpisodeState, row: int, look: Look) -> None:
    """The host from its input, below, to its output, with the slots beside it."""
    has_plane = problem.host.input_shape == (2,)
    if has_plane:
        _draw_boundary(figure.add_axes((0.08, 0.56, 0.2, 0.3)), look)
    ax = figure.add_axes((0.02, 0.14, 0.36, 0.4 if has_plane else 0.72))
    ax.set(xlim=(0, 10), ylim=(0, 2 * problem.num_slots + 2.2))
    ax.axis("off")
    change = problem.changes[problem.change_at[state.instance[row], min(state.step[row], problem.horizon)]]
    is_changed = len(problem.changes) > 1 and change.name != "none"
    ax.text(1.6, 0.15, f"data: {change.name}" if is_changed else "data", ha="center", va="center", fontsize=9)
    for level in range(problem.num_slots + 1):
        low = 2 * level + 0.6
        _box(ax, (0.3, low, 2.6, 0.8), HOST)
        ax.text(1.6, low + 0.4, "host", ha="center", va="center", fontsize=9)
        if level < problem.num_slots:
            _draw_slot(ax, problem, state, row, level, low + 0.85)
            ax.annotate("", (1.6, low + 2.0), (1.6, low + 0.8), arrowprops={"arrowstyle": "-|>", "color": TEXT})
    top = 2 * problem.num_slots + 1.45
    ax.text(1.6, top + 0.45, "prediction", ha="center", va="center", fontsize=9)


def _draw_slot(ax: Axes, problem: Problem, state: EpisodeState, row: int, slot: int, low: float) -> None:
    lifecycle, seeds = state.lifecycle, state.now.seeds
    stage, alpha = Stage(int(lifecycle.stage[row, slot])), float(lifecycle.alpha.value[row, slot])
    height, colour = 1.1, STAGE_COLOURS.get(stage, EMPTY)
    middle = low + height / 2
    ax.plot([1.6, 4.0], [middle, middle], color="#999999", linewidth=1)
    _box(ax, (4.0, low, 5.8, height), colour, opacity=0.25)
    if alpha > 0:
        ax.add_patch(_rectangle(4.0, low, 5.8, height * alpha, colour))
    words = seed_name(problem, state, row, slot)
    if lifecycle.has_seed[row, slot]:
        words += f"\n{stage.name}, alpha {alpha:.2f}"
    if seeds.has_contribution[row, slot]:
        words += f", {seeds.contribution[row, slot]:+.2f}"
    shown = words or ("EMBARGOED" if stage is Stage.EMBARGOED else "empty")
    is_dark = alpha > 0.5 and stage in (Stage.HOLDING, Stage.FOSSILIZED)
    ax.text(6.9, middle, shown, ha="center", va="center", fontsize=8, color="white" if is_dark else TEXT)
    ax.text(4.0, low + height + 0.08, problem.slot_names[slot], fontsize=8, color="#777777")


def _rectangle(x: float, y: float, width: float, height: float, colour: str) -> Any:
    from matplotlib.patches import Rectangle

    return Rectangle((x, y), width, height, facecolor=colour, edgecolor="none")


def _box(ax: Axes, place: tuple[float, float, float, float], colour: str, opacity: float = 1.0) -> None:
    from matplotlib.colors import to_rgba
    from matplotlib.patches import Rectangle

    x, y, width, height = place
    face = to_rgba(colour, opacity)
    ax.add_patch(Rectangle((x, y), width, height, facecolor=face, edgecolor="#777777", linewidth=0.8))


def _draw_boundary(ax: Axes, look: Look) -> None:
    """Classes that the network predicts on a plane, and the samples it is tested on."""
    network, data = look()
    x = data.x.cpu().numpy()
    low, high = x.min(axis=0) - 0.1, x.max(axis=0) + 0.1
    across, up = np.meshgrid(*(np.linspace(low[i], high[i], GRID) for i in range(2)))
    points = torch.from_numpy(np.stack([across, up], axis=-1).reshape(-1, 2))
    with torch.no_grad():
        predicted = network.eval()(points.to(data.x)).argmax(dim=-1)
    classes = predicted.cpu().numpy().reshape(GRID, GRID)
    style: dict[str, Any] = {"cmap": "viridis", "vmin": 0, "vmax": int(data.y.max())}
    ax.imshow(classes, extent=(low[0], high[0], low[1], high[1]), origin="lower", alpha=0.45, aspect="auto", **style)
    ax.scatter(x[:, 0], x[:, 1], c=data.y.cpu().numpy(), s=3, **style)
    ax.set(xticks=[], yticks=[])


# ── its history ─────────────────────────────────────────────────────────────────────────────────


def _draw_curves(ax: Axes, problem: Problem, state: EpisodeState, row: int) -> None:
    steps = np.arange(state.step[row] + 1)
    ax.plot(steps, state.history.accuracy[row, steps], color="#0072B2", label="accuracy (inner_valid)")
    ax.plot(steps, state.history.score[row, steps], color="#D55E00", label="score")
    is_changed = problem.change_at[state.instance[row], steps] > 0
    if is_changed.any():
        ax.fill_between(
            steps, 0, 1, where=is_changed, step="pre", color="#000000", alpha=0.1, label="data have changed"
        )
    ax.set(xlim=(0, problem.horizon), ylim=(min(0.0, float(state.history.score[row].min())), 1.0))
    ax.legend(loc="lower right", fontsize=7, frameon=False, ncols=3)
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
    taken = history.actions[row, : state.step[row]]
    for op, mark in MARKS.items():
        is_asked = (problem.actions.op[taken] == op) & (problem.actions.slot[taken] == slot) & (taken >= 0)
        asked = np.flatnonzero(is_asked)
        ax.plot(
            asked + 0.5, np.full(len(asked), 0.5), marker=mark, linestyle="none", color="black", markersize=4,
            clip_on=False,
        )  # fmt: skip
    ax.set(ylim=(0, 1), yticks=[])
    ax.set_ylabel(problem.slot_names[slot], fontsize=8, rotation=0, ha="right", va="center")
    ax.tick_params(labelsize=7)


def _draw_legend(figure: Figure) -> None:
    """Meanings of colours and marks, along the lower edge."""
    from matplotlib.lines import Line2D

    stages = [
        Line2D([], [], marker="s", linestyle="none", color=colour, label=stage.name)
        for stage, colour in STAGE_COLOURS.items()
    ]
    marks = [
        Line2D([], [], marker=mark, linestyle="none", color="black", markersize=5, label=op.name)
        for op, mark in MARKS.items()
    ]
    style: dict[str, Any] = {"fontsize": 7, "frameon": False, "handletextpad": 0.1, "columnspacing": 1.2}
    figure.legend(handles=stages, loc="lower left", bbox_to_anchor=(0.01, 0.005), ncols=len(stages), **style)
    figure.legend(handles=marks, loc="lower right", bbox_to_anchor=(0.99, 0.005), ncols=len(marks), **style)


def troubles(state: EpisodeState, row: int) -> str:
    """Rollbacks and death of a network; empty for most."""
    rollbacks = state.record.num_rollbacks[row]
    return (f"   rollbacks {rollbacks}" if rollbacks else "") + ("   NETWORK DIED" if state.is_dead[row] else "")


def seed_name(problem: Problem, state: EpisodeState, row: int, slot: int) -> str:
    """Blueprint and operator of a seed; empty where there is none."""
    lifecycle = state.lifecycle
    if not lifecycle.has_seed[row, slot]:
        return ""
    blueprint = problem.config.blueprints[lifecycle.blueprint[row, slot]]
    return f"{blueprint} {Operator(int(lifecycle.operator[row, slot])).name}"
