"""Command that measures how much decisions matter: calibrate."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import tyro

from kasmina_env.cli.arguments import DEFAULT_ID, PATH, Cluster, Count, DefaultId, Flag, NumWorkers, argument
from kasmina_env.cli.checks import check_at_least, check_new_file
from kasmina_env.cli.console import print_table, say
from kasmina_env.cli.crew import find_workers
from kasmina_env.cli.progress import step_counter
from kasmina_env.comparison.calibration_sizes import USUAL_SIZES, Sizes
from kasmina_env.settings.documents import read_document
from kasmina_env.settings.imports import find_preset, import_words
from kasmina_env.settings.paths import FOUND, slug


def calibrate(
    env_id: DefaultId = DEFAULT_ID,
    out: Annotated[Path | None, PATH, argument("FILE", "configs/<id>.calibration.json", "-o")] = None,
    seed: Count = 0,
    sizes: Annotated[Sizes, tyro.conf.arg(name="")] = USUAL_SIZES,
    workers: NumWorkers = None,
    cluster: Cluster = None,
    overwrite: Flag = False,
) -> None:
    """Measure how much decisions matter on an environment; `describe` shows the result from then on.

    Args:
        env_id: Environment to measure.
        out: JSON file to write.
        seed: Seed of schedules and episodes.
        sizes: Numbers of schedules, seeds and instances.
        workers: Processes, or Ray actors with --cluster, to spread the networks over.
        cluster: Ray cluster on which to play; auto joins the one of this machine, or starts it.
        overwrite: Replace the file if it exists.
    """
    preset = find_preset(env_id).id
    check_at_least("seed", seed, 0, "Name another one.")
    path = out or FOUND / f"{slug(preset)}.calibration.json"
    check_new_file(path, overwrite)

    from kasmina_env.comparison.calibrate import calibrate as measure
    from kasmina_env.comparison.calibrate import command_of, num_calibration_steps, save_calibration

    crew = find_workers(workers, cluster)
    with step_counter("measuring", num_calibration_steps(preset, sizes)) as on_step:
        found = measure(preset, sizes, seed, on_step=on_step, workers=crew)
    save_calibration(path, found, command_of(env_id, sizes, seed) + import_words())
    print_calibration(path)
    say(f"Written to {path}.")


def print_calibration(path: Path) -> None:
    """Show how much decisions matter, from a file that `kasmina calibrate` wrote."""
    found = read_document(path, "gaps")
    title = "How much decisions matter (returns; 95 % intervals; noise: standard error of the difference on 16 seeds)"
    _print_gaps(title, found["gaps"], found["meanings"], "only for a family")
    if "value_gaps" in found:  # an older file is measured again
        title = "What it is worth to vary each dimension of a decision, measured in the same way"
        _print_gaps(title, found["decision_gaps"], found["decisions"], "no such choice")
        title = "What each dimension is worth to a controller that cannot know the instance"
        _print_gaps(title, found["value_gaps"], found["values"], "no such choice")
    else:
        say(f"Dimensions of decisions were not measured. Run `kasmina calibrate {found['id']}`.")
    means = ", ".join(f"{name} {value:.3f}" for name, value in found["mean_returns"].items())
    best = found["best"]
    say(f"Mean returns: {means}.\nBest staged: {best['staged']}.\nBest instant: {best['instant']}.")
    say(f"By `{found['command']}`.\n")


def _print_gaps(
    title: str, gaps: Mapping[str, Mapping[str, float] | None], meanings: Mapping[str, str], if_none: str
) -> None:
    """Show gaps with their intervals and meanings, and a word for those that a problem does not have."""
    rows = []
    for name, gap in gaps.items():
        figures: tuple[str, ...] = (if_none, "", "")
        if gap is not None:
            figures = (
                f"{gap['value']:.3f} [{gap['low']:.3f}, {gap['high']:.3f}]",
                f"{gap['noise']:.3f}",
                f"{gap['in_noise']:.1f}",
            )
        rows.append((name, *figures, meanings[name]))
    print_table(title, ("gap", "value", "noise", "gap / noise", "what it is"), rows)
