"""Commands that compare policies and check what a comparison found: compare, validate."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from kasmina_env.cli.arguments import DEFAULT_ID, Cluster, Count, DefaultId, Json, NumWorkers, OutFolder, argument
from kasmina_env.cli.checks import MOST_EPISODES, check_at_least, check_at_most, check_new_folder
from kasmina_env.cli.console import note, print_json, print_table, say
from kasmina_env.cli.crew import find_workers
from kasmina_env.cli.progress import step_counter
from kasmina_env.settings.config import SIGNALS
from kasmina_env.settings.documents import read_document
from kasmina_env.settings.imports import find_preset, import_words
from kasmina_env.settings.machine import on_this_device
from kasmina_env.settings.registry import unknown_name_message

if TYPE_CHECKING:
    from kasmina_env.comparison.arms import Arm
    from kasmina_env.comparison.table import Row
    from kasmina_env.episode.problem import Problem

POLICIES = "all that can play here and do not foresee the episode, as lookahead and oracle do"


def compare(
    env_id: DefaultId = DEFAULT_ID,
    run: Annotated[tuple[str, ...], tyro.conf.UseAppendAction, argument("[NAME=]DIR")] = (),
    policies: Annotated[tuple[str, ...], argument("[POLICY ...]", POLICIES, "--policy")] = (),
    episodes: Count = 64,
    split: Literal["test", "train"] = "test",
    without: Annotated[tuple[str, ...], argument("[SIGNALS ...]", "none")] = (),
    out: OutFolder = Path("runs/compare"),
    workers: NumWorkers = None,
    cluster: Cluster = None,
    as_json: Json = False,
) -> None:
    """Compare trained policies and controls on the same held-out episodes; writes a page, JSON, CSV and pictures.

    Args:
        env_id: Environment to compare on.
        run: Folder of a training run. Runs with the same NAME, or without one of the same algorithm, are averaged.
        policies: Names of policies to compare with, or .py files that register one each.
        episodes: Episodes for each policy.
        split: "test" plays held-out seeds and test instances, "train" others, to choose training settings by.
        without: Groups of observed features that every learned policy also plays without, their values being those
            of another episode: accuracy, gradients, contribution, stage, costs, instance.
        out: New folder for the results.
        workers: Processes, or Ray actors with --cluster, to spread the networks over.
        cluster: Ray cluster on which to play; auto joins the one of this machine, or starts it.
    """
    preset = find_preset(env_id)
    name = preset.id
    check_at_least("episodes", episodes, 1, "Play some.")
    check_at_most("episodes", episodes, MOST_EPISODES, "Play fewer.")
    for policy in policies:
        if policies.count(policy) > 1:
            raise ValueError(f"`policies` must each be named once, got {policy!r} {policies.count(policy)} times.")
    for group in without:
        if group not in SIGNALS:
            raise ValueError(unknown_name_message("without", group, SIGNALS))
    check_new_folder(out)

    from kasmina_env.comparison.arms import compare_arms, num_runs
    from kasmina_env.comparison.players import control_name
    from kasmina_env.comparison.plots import plot_comparison
    from kasmina_env.comparison.results import page
    from kasmina_env.comparison.table import table, write
    from kasmina_env.controllers.policy import CONTROLS
    from kasmina_env.episode.problem import make_problem

    learned_arms, settings = arms_of(run, name)
    controls = tuple(map(control_name, policies)) or default_controls(name, not run, **settings)
    for control in controls:
        CONTROLS.get(control)
    players = {**{control: [control] for control in controls}, **learned_arms}
    crew = find_workers(workers, cluster)
    horizon = preset.config(**settings).horizon
    with step_counter("playing", episodes * num_runs(players, without) * horizon) as on_step:
        arms = compare_arms(
            name, players, episodes, on_step=on_step, split=split, without=without, workers=crew, **settings
        )
    problem = make_problem(name, **settings)
    rows, best = table(arms, problem.actions)
    write(out, problem, rows, arms, best)
    folders = [Path(folder) for arm, runs in players.items() if arm not in CONTROLS for folder in runs]
    plot_comparison(out, problem, arms, rows, folders)
    command = _command(env_id, run, policies, episodes, split, without)
    (out / "comparison.md").write_text(page(command, problem, rows, arms, best), encoding="utf-8")
    if as_json:
        print_json(read_document(out / "comparison.json"))
        return
    _print_comparison(problem, arms, rows, best)
    say(f"Written to {out}. `kasmina validate {out}` plays some of the episodes again.")


def _print_comparison(problem: Problem, arms: Sequence[Arm], rows: Sequence[Row], best: str | None) -> None:
    """Show the table, its legend, and what learned arms and the fixed schedule do most often."""
    from kasmina_env.comparison.arms import kind_of
    from kasmina_env.comparison.results import COLUMNS, NUM_FOR_TERMINALS, cells, legend, run_by_run
    from kasmina_env.comparison.table import favourites
    from kasmina_env.controllers.policy import CONTROLS

    shown, episodes = slice(NUM_FOR_TERMINALS), len(arms[0].runs[0])
    print_table(
        f"{problem.id}: {episodes} {kind_of(arms)} episodes, the same for all",
        COLUMNS[shown],
        [cells(row)[shown] for row in rows],
    )
    say("\n".join([*run_by_run(rows), *legend(best, arms)]))
    for arm in arms:
        if arm.name not in CONTROLS or arm.name == "fixed":
            times, schedule = favourites(arm, problem.actions, 1)[0]
            say(f"{arm.name} most often ({times} of {episodes * len(arm.runs)}): {schedule}")


def validate(results: Annotated[Path, tyro.conf.Positional, argument("RESULTS")]) -> None:
    """Play episodes of every arm of a comparison again and compare every action and score.

    Exit status 1 if any differs, and where it first does.

    Args:
        results: Folder that `kasmina compare` wrote.
    """
    from kasmina_env.comparison.episode_log import ELSEWHERE
    from kasmina_env.comparison.validation import validate as play_again

    verdicts = []
    for verdict in play_again(results):
        verdicts.append(verdict)
        name, is_same = f"{verdict.sample.arm}, run {verdict.sample.run}, seed {verdict.seed}", not verdict.difference
        if is_same:
            say(f"{name}: every score" + (f" within {ELSEWHERE}" if verdict.reason else ""), passed=True)
        else:
            say(f"{name}: {verdict.difference}")
    for reason in dict.fromkeys(verdict.reason for verdict in verdicts if verdict.reason):
        say(f"Scores may differ by {ELSEWHERE} where a replay cannot be exact: {reason}.")
    if any(verdict.difference for verdict in verdicts):
        sys.exit(1)


def default_controls(env_id: str, with_learned: bool = True, **settings: Any) -> tuple[str, ...]:
    """Controls that need no foresight and have what they need; where there is one context only, one schedule for it."""
    from kasmina_env.comparison.players import find_player
    from kasmina_env.controllers.policy import CONTROLS
    from kasmina_env.episode.problem import make_problem

    is_family = make_problem(env_id, **settings).is_family
    chosen: list[str] = []
    left_out: dict[str, list[str]] = {}  # by the reason
    for name in CONTROLS:
        control = CONTROLS.get(name)
        if control.is_bound or ("per_context" in name and not is_family) or (control.is_learned and not with_learned):
            continue
        try:
            find_player(name, env_id, **settings)
        except (FileNotFoundError, ModuleNotFoundError, ValueError) as error:  # none, or one for other settings
            left_out.setdefault(str(error), []).append(name)
        else:
            chosen.append(name)
    for reason, names in left_out.items():
        note(f"Left out: {', '.join(names)}. {reason}")
    return tuple(chosen)


def arms_of(runs: Sequence[str], env_id: str) -> tuple[dict[str, list[str]], dict[str, Any]]:
    """Folders of training runs by arm, and the settings of the problem they were trained on.

    Args:
        runs: NAME=FOLDER, or a folder, whose arm is the algorithm in its settings.
        env_id: Registered id that they must have been trained on, all with the same settings.
    """
    if not runs:
        return {}, {}

    import kasmina_env.comparison.controls  # noqa: F401 - registers the controls
    from kasmina_env.controllers.policy import CONTROLS
    from kasmina_env.learning.controller_file import config_of_run

    arms: dict[str, list[str]] = {}
    problems: dict[str, dict[str, Any]] = {}
    folders: set[Path] = set()
    for run in runs:
        name, has_name, folder = ("", "", run) if Path(run).is_dir() else run.rpartition("=")
        config = config_of_run(Path(folder))
        if Path(folder).resolve() in folders:
            raise ValueError(f"`run` must be another one each time, got {folder} again. Two of one are no evidence.")
        folders.add(Path(folder).resolve())
        if config.preset != env_id:
            raise ValueError(f"`run` must be of {env_id}, got {folder}, which is of {config.preset}. Compare it there.")
        problems[folder] = {key: value for key, value in config.settings.items() if key != "hidden"}
        name = name if has_name else config.algorithm
        if name in CONTROLS:
            raise ValueError(f"`run` must have a name that no control has, got {name!r}. Choose another one.")
        arms.setdefault(name, []).append(folder)
    settings = next(iter(problems.values()), {})
    for folder, other in problems.items():
        if other != settings:
            raise ValueError(
                f"`run` must be trained with settings {settings}, got {folder} with {other}. Compare it alone."
            )
    return arms, settings


def _command(
    env_id: str, runs: Sequence[str], policies: Sequence[str], episodes: int, split: str, without: Sequence[str]
) -> str:
    """What to type for the same comparison."""
    words = [f"--run {run}" for run in runs]
    words += [f"--policies {' '.join(policies)}"] if policies else []
    words += [f"--split {split}"] if split != "test" else []
    words += [f"--without {' '.join(without)}"] if without else []
    return on_this_device(" ".join(["kasmina compare", env_id, *words, f"--episodes {episodes}"]) + import_words())
