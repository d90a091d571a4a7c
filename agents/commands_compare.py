"""The command `kasmina compare`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated

import tyro

from agents.controls import CONTROLS
from agents.evaluate import Row, compare_arms, favourites, table, write
from agents.policy import instances_of, make_env
from agents.progress import step_counter
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
    """Play the same held-out episodes with controls and trained runs; writes a table, JSON, CSV and pictures.

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
    _print_table(f"{env_id}: {episodes} held-out episodes, the same for all; intervals 95 %", rows, best)
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


def _print_table(title: str, rows: Sequence[Row], best: str | None) -> None:
    lines = [
        (
            f"{row.arm} ×{row.num_runs}" if row.num_runs > 1 else row.arm,
            f"{row.mean_return.value:.3f} [{row.mean_return.low:.3f}, {row.mean_return.high:.3f}]",
            f"{row.iqm_return:.3f}",
            "" if row.minus_best is None else f"{row.minus_best.value:+.3f} ± {row.minus_best.half_width:.3f}",
            "" if row.improves is None else f"{row.improves:.2f}",
            "" if row.share_of_fixed is None else f"{row.share_of_fixed:.1%}",
            "" if row.gap_closed is None else f"{row.gap_closed:.0%}",
            f"{row.test_accuracy:.3f}",
            f"+{row.param_growth:.0%}",
            f"+{row.compute:.0%}",
            f"{row.prune_share:.1%}",
            str(row.illegal),
        )
        for row in rows
    ]
    columns = ("arm", "return", "IQM", "− best", "P>", "to fixed", "to oracle")
    print_table(title, (*columns, "test", "params", "compute", "PRUNE", "illegal"), lines)
    console.print(
        "return: committed score − first score − costs.\n"
        f"− best, P>: difference to the best control that foresees nothing ({best}), on the same episodes; how often "
        "above it.\n"
        "to fixed: share of the way from wait to fixed; to oracle: from fixed to oracle.\n"
        "test: accuracy of what is kept; params: fossilized over the host's; compute: of all seeds over the host's, "
        "mean over the episode.",
        highlight=False,
    )
