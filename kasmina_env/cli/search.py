"""Command that searches for fixed schedules: search."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

from kasmina_env.cli.arguments import DEFAULT_ID, PATH, Cluster, Count, DefaultId, Flag, NumWorkers, argument
from kasmina_env.cli.checks import check_at_least, check_new_file
from kasmina_env.cli.console import say
from kasmina_env.cli.crew import find_workers
from kasmina_env.cli.progress import step_counter
from kasmina_env.settings.configs import FOUND, slug
from kasmina_env.settings.imports import find_preset, import_words
from kasmina_env.settings.machine import on_this_device


def search(
    env_id: DefaultId = DEFAULT_ID,
    out: Annotated[Path | None, PATH, argument("FILE", "configs/<id>.schedule.json or .per_context.json", "-o")] = None,
    seed: Count = 0,
    per_context: Flag = False,
    facts: Annotated[tuple[str, ...], argument("[FACT ...]", "all")] = (),
    workers: NumWorkers = None,
    cluster: Cluster = None,
    overwrite: Flag = False,
) -> None:
    """Search for the best fixed schedule, the control that a trained policy has to beat.

    Args:
        env_id: Environment to search on.
        out: JSON file to write.
        seed: Seed of the search.
        per_context: Search for one schedule per context of a family. A context is a cell of a grid over what a policy
            is told of an instance.
        facts: Visible facts that span the grid, with --per-context.
        workers: Processes, or Ray actors with --cluster, to spread the networks over.
        cluster: Ray cluster on which to play; auto joins the one of this machine, or starts it.
        overwrite: Replace the file if it exists.
    """
    preset = find_preset(env_id).id
    check_at_least("seed", seed, 0, "Name another one.")
    if facts and not per_context:
        raise ValueError(f"`facts` must be left out without --per-context, got {', '.join(facts)}. Pass both or none.")
    path = out or FOUND / f"{slug(preset)}.{'per_context' if per_context else 'schedule'}.json"
    check_new_file(path, overwrite)

    from kasmina_env.controllers import search as searching
    from kasmina_env.controllers.per_context import save_contexts
    from kasmina_env.controllers.schedule import describe, save_schedule
    from kasmina_env.episode.problem import make_problem

    problem, crew = make_problem(preset), find_workers(workers, cluster)
    total = searching.num_search_steps(problem, per_context, facts)
    with step_counter("searching", total) as on_step:
        if per_context:
            cells = searching.search_contexts(problem, seed, facts, on_step, workers=crew)
        else:
            found = searching.search(problem, seed, on_step, workers=crew)
    about = {"command": _command(env_id, seed, per_context, facts)}
    if per_context:
        contexts = [(cell, best.actions, float(best.returns.mean())) for cell, best in cells]
        save_contexts(path, problem, contexts, about)
        for cell, actions, value in contexts:
            where = ", ".join(f"{name} {low:.2f} to {high:.2f}" for name, (low, high) in cell.bounds.items())
            say(f"{where}: {value:.3f}, {describe(actions, problem.actions)}")
    else:
        value = float(found.returns.mean())
        save_schedule(path, problem, found.actions, {**about, "mean_return": value})
        say(describe(found.actions, problem.actions))
        say(f"Mean return {value:.3f} on {len(found.returns)} episodes of the search.")
    say(f"Written to {path}.")


def _command(env_id: str, seed: int, per_context: bool, facts: Sequence[str]) -> str:
    """What to type for the same search."""
    words = ["--per-context"] if per_context else []
    words += ["--facts", *facts] if facts else []
    return on_this_device(" ".join(["kasmina search", env_id, f"--seed {seed}", *words]) + import_words())
