"""Command that searches for controls, schedules and rules: search."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from kasmina_env.cli.arguments import DEFAULT_ID, PATH, Cluster, Count, DefaultId, Flag, NumWorkers, argument
from kasmina_env.cli.checks import check_at_least, check_new_file
from kasmina_env.cli.console import say
from kasmina_env.cli.crew import find_workers
from kasmina_env.cli.progress import step_counter
from kasmina_env.settings.imports import find_preset, import_words
from kasmina_env.settings.machine import on_this_device
from kasmina_env.settings.paths import FOUND, slug

if TYPE_CHECKING:
    from kasmina_env.envs.workers import Workers
    from kasmina_env.episode.problem import Problem


def search(
    env_id: DefaultId = DEFAULT_ID,
    out: Annotated[Path | None, PATH, argument("FILE", "configs/<id>.<kind>.json", "-o")] = None,
    seed: Count = 0,
    per_context: Flag = False,
    reactive: Flag = False,
    facts: Annotated[tuple[str, ...], argument("[FACT ...]", "all")] = (),
    workers: NumWorkers = None,
    cluster: Cluster = None,
    overwrite: Flag = False,
) -> None:
    """Search for the best fixed schedule, or the best rules: controls that a trained policy has to beat.

    Args:
        env_id: Environment to search on.
        out: JSON file to write; the kind is schedule, per_context or reactive.
        seed: Seed of the search.
        per_context: Search for one schedule per context of a family. A context is a cell of a grid over what a policy
            is told of an instance.
        reactive: Search for rules that react to accuracy and contribution.
        facts: Visible facts that span the grid, with --per-context.
        workers: Processes, or Ray actors with --cluster, to spread the networks over.
        cluster: Ray cluster on which to play; auto joins the one of this machine, or starts it.
        overwrite: Replace the file if it exists.
    """
    preset = find_preset(env_id).id
    check_at_least("seed", seed, 0, "Name another one.")
    if facts and not per_context:
        raise ValueError(f"`facts` must be left out without --per-context, got {', '.join(facts)}. Pass both or none.")
    if per_context and reactive:
        raise ValueError("`--per-context` and `--reactive` must not both be given, got both. Search for one at a time.")
    kind = "per_context" if per_context else "reactive" if reactive else "schedule"
    path = out or FOUND / f"{slug(preset)}.{kind}.json"
    check_new_file(path, overwrite)
    words = {"per_context": ["--per-context"], "reactive": ["--reactive"]}.get(kind, [])
    words += ["--facts", *facts] if facts else []
    command = on_this_device(" ".join(["kasmina search", env_id, f"--seed {seed}", *words]) + import_words())

    from kasmina_env.episode.problem import make_problem

    problem, about = make_problem(preset), {"command": command}
    crew = find_workers(workers, cluster)
    if per_context:
        _find_contexts(path, problem, seed, about, crew, facts)
    else:
        (_find_rules if reactive else _find_schedule)(path, problem, seed, about, crew)
    say(f"Written to {path}.")


def _find_schedule(path: Path, problem: Problem, seed: int, about: dict[str, Any], crew: Workers) -> None:
    from kasmina_env.controllers import search as searching
    from kasmina_env.controllers.schedule import save_schedule, schedule_in_words

    with step_counter("searching", searching.num_search_steps(problem)) as on_step:
        found = searching.search(problem, seed, on_step, workers=crew)
    value = float(found.returns.mean())
    save_schedule(path, problem, found.actions, {**about, "mean_return": value})
    say(schedule_in_words(found.actions, problem.actions))
    say(f"Mean return {value:.3f} on {len(found.returns)} episodes of the search.")


def _find_contexts(
    path: Path, problem: Problem, seed: int, about: dict[str, Any], crew: Workers, facts: Sequence[str]
) -> None:
    from kasmina_env.controllers import search as searching
    from kasmina_env.controllers.per_context import save_contexts
    from kasmina_env.controllers.schedule import schedule_in_words

    with step_counter("searching", searching.num_search_steps(problem, True, facts)) as on_step:
        cells = searching.search_contexts(problem, seed, facts, on_step, workers=crew)
    contexts = [(cell, best.actions, float(best.returns.mean())) for cell, best in cells]
    save_contexts(path, problem, contexts, about)
    for cell, actions, value in contexts:
        where = ", ".join(f"{name} {low:.2f} to {high:.2f}" for name, (low, high) in cell.bounds.items())
        say(f"{where}: {value:.3f}, {schedule_in_words(actions, problem.actions)}")


def _find_rules(path: Path, problem: Problem, seed: int, about: dict[str, Any], crew: Workers) -> None:
    from kasmina_env.comparison.controls import best_known_rules
    from kasmina_env.controllers.reactive import rules_in_words, save_rules
    from kasmina_env.controllers.rule_search import USUAL_RULE_EFFORT, search_rules

    num_episodes = USUAL_RULE_EFFORT.on(problem).num_episodes
    with step_counter("searching", problem.horizon * num_episodes) as on_step:
        found = search_rules(problem, best_known_rules(problem), seed, on_step, workers=crew)
    value = float(found.returns.mean())
    save_rules(path, problem, found.rules, {**about, "mean_return": value})
    say(rules_in_words(found.rules))
    say(f"Mean return {value:.3f} on {len(found.returns)} episodes of the search.")
