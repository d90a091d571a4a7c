"""Episodes as text."""

from __future__ import annotations

from kasmina_env.core import Core
from kasmina_env.lifecycle import Stage
from kasmina_env.reward import compute_growth, param_growth

BAR = 20  # characters


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
        f"rent paid {config.rent_price * view.compute_spent[row]:.4f}",
        f"action   {taken}{remark}",
    ]
    for slot, name in enumerate(core.slot_names):
        stage = Stage(int(lifecycle.stage[row, slot]))
        line = f"{name:<9}{_bar(lifecycle.alpha.value[row, slot])} {stage.name:<10}"
        if lifecycle.has_seed[row, slot]:
            blueprint = config.blueprints[lifecycle.blueprint[row, slot]]
            line += f" {blueprint} {core.operator_name(row, slot)}, age {lifecycle.age[row, slot]}"
        if view.facts.has_contribution[row, slot]:
            line += f", contribution {view.facts.contribution[row, slot]:+.3f}"
        lines.append(line)
    return "\n".join(lines)
