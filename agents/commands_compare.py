"""The command `kasmina compare`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated

import tyro

from agents.controls import CONTROLS
from agents.evaluate import compare_arms, favourites, table, write
from agents.policy import instances_of, make_env
from agents.progress import step_counter
from agents.results import COLUMNS, cells, legend, page
from kasmina_env.cli import Id, console, print_table
from kasmina_env.presets import PRESETS

Out = Annotated[Path, tyro.conf.arg(aliases=["-o"])]


def compare(
    env_id: Id = "Kasmina/Digits-v0",
    run: tyro.conf.UseAppendAction[tuple[str, ...]] = (),
    policies: tuple[str, ...] = (),
    episodes: int = 64,
    out: Out = Path("runs/compare"),
) -> None:
    """Play the same held-out episodes with controls and trained runs; writes a page, JSON, CSV and pictures.

    Args:
        env_id: Registered id.
        run: Folder of a training run, or NAME=FOLDER; may be given several times. Runs of one name, or else of one
            algorithm, are one arm.
        policies: Controls to play; default: all but those that foresee the episode (lookahead, oracle), which take
            minutes.
        episodes: Held-out episodes for each.
        out: Folder for the results.
    """
    from agents.plots import plot_comparison

    PRESETS.get(env_id)
    if episodes < 1:
        raise ValueError(f"`episodes` must be at least 1, got {episodes}. Play some.")
    controls = policies or default_controls(env_id)
    for name in controls:
        CONTROLS.get(name)
    players = {**{name: [name] for name in controls}, **arms_of(run, controls)}
    count = episodes * sum(len(runs) for runs in players.values()) * PRESETS.get(env_id).config().horizon
    with step_counter("playing", count) as on_step:
        arms, names = compare_arms(env_id, players, episodes, on_step=on_step)
    rows, best = table(arms, names)
    write(out, env_id, rows, arms, names, best)
    folders = [Path(folder) for name, runs in players.items() if name not in CONTROLS for folder in runs]
    plot_comparison(out, env_id, arms, rows, names, folders)
    instances = make_env(env_id, 1).core.instances
    (out / "comparison.md").write_text(
        page(_command(env_id, run, policies, episodes), env_id, rows, arms, names, best, instances)
    )
    print_table(f"{env_id}: {episodes} held-out episodes, the same for all", COLUMNS, map(cells, rows))
    console.print("\n".join(legend(best)), highlight=False)
    for arm in arms:
        if arm.name not in CONTROLS or arm.name == "fixed":
            times, schedule = favourites(arm, names, 1)[0]
            count = episodes * len(arm.runs)
            console.print(f"{arm.name} most often ({times} of {count}): {schedule}", highlight=False)
    console.print(f"Written to {out}.")


def default_controls(env_id: str) -> tuple[str, ...]:
    """Controls that need no foresight; where there is one context only, one schedule for it."""
    is_family = instances_of(make_env(env_id, 1), "test") is not None
    return tuple(name for name in CONTROLS if not CONTROLS.get(name).is_bound and (is_family or name != "per_context"))


def arms_of(runs: Sequence[str], taken: Sequence[str]) -> Mapping[str, list[str]]:
    """Folders of training runs by arm: by the name given as NAME=FOLDER, or else by the algorithm of its recipe."""
    from agents.train import load_recipe

    arms: dict[str, list[str]] = {}
    for run in runs:
        name, has_name, folder = run.rpartition("=")
        if not (Path(folder) / "recipe.json").is_file():
            raise FileNotFoundError(f"`run` must be the folder of a training run, got {folder!r}. Train one first.")
        name = name if has_name else load_recipe(Path(folder) / "recipe.json").algorithm
        if name in (*taken, *CONTROLS):
            raise ValueError(f"`run` must have a name that no control has, got {name!r}. Choose another one.")
        arms.setdefault(name, []).append(folder)
    return arms


def _command(env_id: str, runs: Sequence[str], policies: Sequence[str], episodes: int) -> str:
    """What to type for the same comparison."""
    words = [f"--run {run}" for run in runs]
    words += [f"--policies {' '.join(policies)}"] if policies else []
    return " ".join(["kasmina compare", env_id, *words, f"--episodes {episodes}"])
