"""Command that measures speed: bench."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import tyro

from kasmina_env.cli.arguments import DEFAULT_ID, PATH, WHOLE, Count, Flag, Json, argument
from kasmina_env.cli.checks import check_at_least, check_at_most, check_installed, check_new_file
from kasmina_env.cli.console import print_json, print_table
from kasmina_env.settings.imports import find_preset
from kasmina_env.settings.machine import MOST_ENVS, MOST_WORKERS
from kasmina_env.settings.presets import Preset

MOST_REPEATS = 10_000


def bench(
    env_ids: Annotated[tuple[str, ...], tyro.conf.Positional, argument("[ID ...]")] = (
        DEFAULT_ID,
        "Kasmina/Spirals-v0",
    ),
    sizes: Annotated[tuple[int, ...], argument("[N ...]")] = (1, 8, 64, 256),
    repeats: Count = 5,
    steps: Count = 3,
    rivals: Flag = True,
    memory: Flag = True,
    workers: Annotated[int | None, WHOLE, argument("N", "one for each core, none on a GPU")] = None,
    compiled: Flag = False,
    growth: Count = 0,
    out: Annotated[Path | None, PATH, argument("DIR", "no picture", "-o")] = None,
    as_json: Json = False,
) -> None:
    """Time steps of populations with a live seed in every slot, beside the single environment and PyTorch.

    Args:
        env_ids: Environments to time.
        sizes: Numbers of networks that train side by side.
        repeats: Repeats of every measurement; the median and the spread are shown.
        steps: Steps of each repeat.
        rivals: Leave out the single environment, alone and in the vectors of stable-baselines3, and plain PyTorch.
        memory: Leave out peak memory, which takes a process for each size.
        workers: Processes to spread the networks over, beside one process alone; 1 leaves this out.
        compiled: Time stacked networks under `torch.compile` too, which needs a C++ compiler and minutes.
        growth: Number of networks for timing how cost grows with seeds, slots, blueprints and batch; 0 leaves it out.
        out: Folder for a picture, bench.png.
    """
    presets = [find_preset(env_id) for env_id in env_ids]
    names = [preset.id for preset in presets]
    _check_sizes(sizes)
    check_at_least("repeats", repeats, 1, "Measure at least once.")
    check_at_most("repeats", repeats, MOST_REPEATS, "Measure less.")
    _check_steps(steps, presets)
    check_at_least("workers", 1 if workers is None else workers, 1, "1 measures none.")
    check_at_most("workers", workers or 1, MOST_WORKERS, "Use fewer.")
    check_at_least("growth", growth, 0, "0 leaves it out.")
    check_at_most("growth", growth, MOST_ENVS, "Time fewer.")
    if out is not None:
        check_new_file(out / "bench.png", otherwise="")
        check_installed("matplotlib")

    from kasmina_env.bench import as_json as to_json
    from kasmina_env.bench import measure, measure_growth, picture, tables
    from kasmina_env.cli.interrupts import begin_work
    from kasmina_env.population.device import num_processes

    begin_work()
    crew = num_processes() if workers is None else workers
    found = [measure(name, sizes, repeats, steps, rivals, memory, crew, compiled) for name in names]
    costs = [measure_growth(name, growth, repeats) if growth else [] for name in names]
    pairs = list(zip(found, costs, strict=True))
    if as_json:
        print_json([json.loads(to_json(*pair)) for pair in pairs])
    else:
        for table in [table for pair in pairs for table in tables(*pair)]:
            print_table(*table)
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
        picture(found, out / "bench.png")


def _check_sizes(sizes: Sequence[int]) -> None:
    for size in sizes:
        check_at_least("sizes", size, 1, "Time some networks.")
        check_at_most("sizes", size, MOST_ENVS, "Time fewer.")
    if not sizes:
        raise ValueError("`sizes` must be at least one number of networks, got none. Name some, or leave it out.")


def _check_steps(steps: int, presets: Sequence[Preset]) -> None:
    check_at_least("steps", steps, 1, "Time at least one.")
    for preset in presets:
        if steps >= (horizon := preset.config().horizon):
            raise ValueError(f"`steps` must be below {horizon}, the length of an episode of {preset.id}, got {steps}.")
