"""Command that searches for fixed schedules: search."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from kasmina_env.cli.arguments import DEFAULT_ID, Count, DefaultId, Flag, argument
from kasmina_env.cli.checks import check_at_least, check_new_file
from kasmina_env.cli.console import say
from kasmina_env.cli.progress import step_counter
from kasmina_env.settings.configs import FOUND, slug
from kasmina_env.settings.machine import on_this_device
from kasmina_env.settings.presets import PRESETS


def search(
    env_id: DefaultId = DEFAULT_ID,
    out: Annotated[Path | None, argument("FILE", "configs/<id>.schedule.json or .per_context.json", "-o")] = None,
    seed: Count = 0,
    per_context: Flag = False,
    facts: Annotated[tuple[str, ...], argument("[FACT ...]", "all")] = (),
    overwrite: Flag = False,
) -> None:
    """Search for the best fixed schedule, the control that a trained policy has to beat.

    Args:
        env_id: Environment to search on.
        out: JSON file to write.
        seed: Seed of the search.
        per_context: Search for one schedule per context of a family. A context is a cell of a grid over what a policy
            is told of an instance.
        facts: Names of what spans the grid, with --per-context.
        overwrite: Replace the file if it exists.
    """
    PRESETS.get(env_id)
    check_at_least("seed", seed, 0, "Name another one.")
    if facts and not per_context:
        raise ValueError(f"`facts` must be left out without --per-context, got {', '.join(facts)}. Pass both or none.")
    path = out or FOUND / f"{slug(env_id)}.{'per_context' if per_context else 'schedule'}.json"
    check_new_file(path, overwrite)

    from kasmina_env.controllers import search as searching
    from kasmina_env.controllers.per_context import save_contexts
    from kasmina_env.controllers.schedule import describe, save_schedule
    from kasmina_env.episode.problem import make_problem

    problem = make_problem(env_id)
    command = on_this_device(f"kasmina search {env_id} --seed {seed}")
    total = searching.num_search_steps(problem, per_context, facts)
    with step_counter("searching", total) as on_step:
        if per_context:
            cells = searching.search_contexts(problem, seed, facts, on_step)
        else:
            found = searching.search(problem, seed, on_step)
    if per_context:
        command += " --per-context" + (f" --facts {' '.join(facts)}" if facts else "")
        contexts = [(cell, best.actions, float(best.returns.mean())) for cell, best in cells]
        save_contexts(path, problem, contexts, {"command": command})
        for cell, actions, value in contexts:
            where = ", ".join(f"{name} {low:.2f} to {high:.2f}" for name, (low, high) in cell.bounds.items())
            say(f"{where}: {value:.3f}, {describe(actions, problem.actions)}")
    else:
        value = float(found.returns.mean())
        save_schedule(path, problem, found.actions, {"command": command, "mean_return": value})
        say(describe(found.actions, problem.actions))
        say(f"Mean return {value:.3f} on {len(found.returns)} episodes of the search.")
    say(f"Written to {path}.")
