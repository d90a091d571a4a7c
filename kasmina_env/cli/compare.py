"""The command `kasmina compare`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from kasmina_env.cli.environments import Id, console, print_table
from kasmina_env.cli.paths import check_new_folder
from kasmina_env.cli.progress import step_counter
from kasmina_env.comparison.arms import find_player
from kasmina_env.comparison.evaluate import compare_arms, favourites, kind_of, table, write
from kasmina_env.comparison.results import COLUMNS, NUM_FOR_TERMINALS, cells, legend, page, run_by_run
from kasmina_env.controllers.policy import CONTROLS
from kasmina_env.episode.problem import make_problem
from kasmina_env.settings.machine import on_this_device
from kasmina_env.settings.presets import PRESETS

Out = Annotated[Path, tyro.conf.arg(aliases=["-o"])]


def compare(
    env_id: Id = "Kasmina/Digits-v0",
    run: tyro.conf.UseAppendAction[tuple[str, ...]] = (),
    policies: tuple[str, ...] = (),
    episodes: int = 64,
    split: Literal["test", "train"] = "test",
    out: Out = Path("runs/compare"),
) -> None:
    """Play the same held-out episodes with controls and trained runs; writes a page, JSON, CSV and pictures.

    Args:
        env_id: Registered id.
        run: Folder of a training run, or NAME=FOLDER; may be given several times. Runs of one name, or else of one
            algorithm, are one arm.
        policies: Controls to play; default: all that have a schedule, but those that foresee the episode (lookahead,
            oracle), which take minutes.
        episodes: Episodes of each.
        split: "test" plays held-out seeds and test instances; "train" others, to choose recipes by.
        out: New folder for the results.
    """
    from kasmina_env.comparison.plots import plot_comparison

    PRESETS.get(env_id)
    if episodes < 1:
        raise ValueError(f"`episodes` must be at least 1, got {episodes}. Play some.")
    check_new_folder(out)
    learned_arms, settings = arms_of(run, env_id)
    controls = policies or default_controls(env_id, **settings)
    for name in controls:
        CONTROLS.get(name)
    players = {**{name: [name] for name in controls}, **learned_arms}
    horizon = PRESETS.get(env_id).config(**settings).horizon
    with step_counter("playing", episodes * sum(map(len, players.values())) * horizon) as on_step:
        arms = compare_arms(env_id, players, episodes, on_step=on_step, split=split, **settings)
    problem = make_problem(env_id, **settings)
    rows, best = table(arms, problem.actions)
    write(out, problem, rows, arms, best)
    folders = [Path(folder) for name, runs in players.items() if name not in CONTROLS for folder in runs]
    plot_comparison(out, problem, arms, rows, folders)
    command = _command(env_id, run, policies, episodes, split)
    (out / "comparison.md").write_text(page(command, problem, rows, arms, best), encoding="utf-8")
    shown = slice(NUM_FOR_TERMINALS)
    print_table(
        f"{env_id}: {episodes} {kind_of(arms)} episodes, the same for all",
        COLUMNS[shown],
        [cells(r)[shown] for r in rows],
    )
    console.print("\n".join([*run_by_run(rows), *legend(best, arms)]), highlight=False)
    for arm in arms:
        if arm.name not in CONTROLS or arm.name == "fixed":
            times, schedule = favourites(arm, problem.actions, 1)[0]
            count = episodes * len(arm.runs)
            console.print(f"{arm.name} most often ({times} of {count}): {schedule}", highlight=False)
    console.print(f"Written to {out}.")


def default_controls(env_id: str, **settings: Any) -> tuple[str, ...]:
    """Controls that need no foresight and have what they need; where there is one context only, one schedule for it."""
    is_family = make_problem(env_id, **settings).is_family
    chosen: list[str] = []
    left_out: dict[str, list[str]] = {}  # by the reason
    for name in CONTROLS:
        control = CONTROLS.get(name)
        if control.is_bound or ("per_context" in name and not is_family):
            continue
        try:
            find_player(name, env_id, **settings)
        except (FileNotFoundError, ValueError) as error:  # no schedule, or one of other menus
            left_out.setdefault(str(error), []).append(name)
        else:
            chosen.append(name)
    for reason, names in left_out.items():
        console.print(f"Left out: {', '.join(names)}. {reason}", highlight=False)
    return tuple(chosen)


def arms_of(runs: Sequence[str], env_id: str) -> tuple[dict[str, list[str]], dict[str, Any]]:
    """Folders of training runs by arm, and the settings of the problem they were trained on.

    Args:
        runs: NAME=FOLDER, or a folder, whose arm is the algorithm of its recipe.
        env_id: Registered id that they must have been trained on, all with the same settings.
    """
    from kasmina_env.learning.training_config import recipe_of

    arms: dict[str, list[str]] = {}
    problems: dict[str, dict[str, Any]] = {}
    folders: set[Path] = set()
    for run in runs:
        name, has_name, folder = ("", "", run) if Path(run).is_dir() else run.rpartition("=")
        recipe = recipe_of(Path(folder))
        if Path(folder).resolve() in folders:
            raise ValueError(f"`run` must be another one each time, got {folder} again. Two of one are no evidence.")
        folders.add(Path(folder).resolve())
        if recipe.preset != env_id:
            raise ValueError(f"`run` must be of {env_id}, got {folder}, which is of {recipe.preset}. Compare it there.")
        problems[folder] = dict(recipe.settings)
        name = name if has_name else recipe.algorithm
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


def _command(env_id: str, runs: Sequence[str], policies: Sequence[str], episodes: int, split: str) -> str:
    """What to type for the same comparison."""
    words = [f"--run {run}" for run in runs]
    words += [f"--policies {' '.join(policies)}"] if policies else []
    words += [f"--split {split}"] if split != "test" else []
    return on_this_device(" ".join(["kasmina compare", env_id, *words, f"--episodes {episodes}"]))
