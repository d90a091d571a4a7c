"""Episodes as text."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from kasmina_env.envs.pictures import Look, render_picture, seed_name, troubles
from kasmina_env.episode.problem import Problem
from kasmina_env.episode.state import EpisodeState
from kasmina_env.lifecycle.state import Stage

RENDER_MODES = ("ansi", "rgb_array")
RENDER_FPS = 4
BAR = 20  # characters


def render(problem: Problem, state: EpisodeState, row: int, mode: str, look: Look) -> str | NDArray[np.uint8]:
    """A picture or panel of one network in the given mode, "ansi" or "rgb_array"."""
    return render_text(problem, state, row) if mode == "ansi" else render_picture(problem, state, row, look)


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
        f"train loss {state.now.train_loss[row]:.3f}" + troubles(state, row),
        f"accuracy {_bar(state.now.accuracy[row])} {state.now.accuracy[row]:.3f}   best {state.best_accuracy[row]:.3f}",
        f"growth   parameters +{costs.param_growth(lifecycle)[row]:.0%}, "
        f"compute +{costs.compute_growth(lifecycle)[row]:.0%}, "
        f"rent paid {problem.instances.numbers['rent_price'][state.instance[row]] * state.compute_spent[row]:.4f}",
        f"action   {taken}{remark}",
    ]
    for slot, name in enumerate(problem.slot_names):
        stage = Stage(int(lifecycle.stage[row, slot]))
        line = f"{name:<9}{_bar(lifecycle.alpha.value[row, slot])} {stage.name:<10} "
        line += seed_name(problem, state, row, slot)
        if lifecycle.has_seed[row, slot]:
            line += f", age {lifecycle.age[row, slot]}"
        if state.now.seeds.has_contribution[row, slot]:
            line += f", contribution {state.now.seeds.contribution[row, slot]:+.3f}"
        lines.append(line.rstrip())
    return "\n".join(lines)
