"""Commands that show and check environments; `kasmina_env.cli.main` adds those that play and learn."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Annotated, Literal

import gymnasium
import tyro
from gymnasium.utils.env_checker import check_env
from rich import box
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from kasmina_env.envs.render import rules_table
from kasmina_env.episode.actions import ARGUMENTS, HEADS
from kasmina_env.episode.data import make_task
from kasmina_env.episode.problem import Problem, make_problem
from kasmina_env.lifecycle.transitions import Op
from kasmina_env.settings.config import Operator
from kasmina_env.settings.configs import config_path, slug
from kasmina_env.settings.documents import read_document
from kasmina_env.settings.presets import PRESETS
from kasmina_env.tasks import DATASETS, SPLITS
from kasmina_env.tasks.fetch import fetch
from kasmina_env.tasks.files import DataFile, Dataset, find, find_file, read_all

# Tables of ten columns are not cut where nobody looks at a terminal, such as in a log.
console = Console() if sys.stdout.isatty() else Console(width=130, height=50)
Id = Annotated[str, tyro.conf.Positional]


def print_table(title: str, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Show rows under a title; columns wrap to the width of the terminal."""
    table = Table(title=title, box=box.SIMPLE_HEAD, title_justify="left", title_style="bold")
    for number, column in enumerate(columns):
        table.add_column(column, overflow="fold", no_wrap=number < 2 and len(columns) > 4)
    for row in rows:
        table.add_row(*(str(cell) for cell in row))
    console.print(table)


def list_ids() -> None:
    """List the registered environments."""
    rows = []
    for name in PRESETS:
        problem = make_problem(name)
        sizes = (problem.actions.num_actions, len(problem.observations.names), problem.horizon)
        rows.append((name, *sizes, PRESETS.get(name).description))
    print_table("Environments", ("id", "actions", "observations", "steps", "what it is"), rows)


def describe(env_id: Id) -> None:
    """Show actions, observations, reward terms and rules of an environment, from the tables the code runs on."""
    preset = PRESETS.get(env_id)
    problem = make_problem(env_id)
    config, task = problem.config, make_task(problem)
    console.print(f"[bold]{preset.id}[/bold]: {preset.description}\n")
    samples = ", ".join(f"{name} {len(task.splits[name])}" for name in SPLITS)
    console.print(f"Samples: {samples}. An episode is {config.horizon} steps of {config.batches_per_step} minibatches.")
    _describe_slots(problem)
    _describe_actions(problem)
    print_table("Rules", ("stage", "operation", "next stage", "requires", "meaning"), rules_table(config.rules))
    print_table(
        f"Reward '{config.reward}': {problem.reward.description}",
        ("term", "meaning"),
        [(name, term.meaning) for name, term in problem.reward.terms.items()],
    )
    print_table("What an instance settles", ("name", "value", "seen"), _instance_rows(problem))
    try:
        print_calibration(config_path(f"{slug(env_id)}.calibration.json", f"Run `kasmina calibrate {env_id}`.", True))
    except FileNotFoundError as error:
        console.print(f"Not calibrated: {error}\n", highlight=False)
    entries = zip(
        problem.observations.names,
        problem.observations.low,
        problem.observations.high,
        problem.observations.meanings,
        strict=True,
    )
    rows = [(i, name, f"{low:g}", f"{high:g}", meaning) for i, (name, low, high, meaning) in enumerate(entries)]
    print_table("Observation", ("entry", "name", "low", "high", "meaning"), rows)


def print_calibration(path: Path) -> None:
    """Show how much decisions matter, from a file that `kasmina calibrate` wrote."""
    found = read_document(path, "gaps")
    rows = []
    for name, gap in found["gaps"].items():
        figures: tuple[str, ...] = ("only for a family", "", "")
        if gap is not None:
            figures = (
                f"{gap['value']:.3f} [{gap['low']:.3f}, {gap['high']:.3f}]",
                f"{gap['noise']:.3f}",
                f"{gap['in_noise']:.1f}",
            )
        rows.append((name, *figures, found["meanings"][name]))
    title = "How much decisions matter (returns; 95 % intervals; noise: standard error of the difference on 16 seeds)"
    print_table(title, ("gap", "value", "noise", "gap / noise", "what it is"), rows)
    means = ", ".join(f"{name} {value:.3f}" for name, value in found["mean_returns"].items())
    best = found["best"]
    console.print(
        f"Mean returns: {means}.\nBest staged: {best['staged']}.\nBest instant: {best['instant']}.\n"
        f"By `{found['command']}`.\n",
        highlight=False,
    )


def _instance_rows(problem: Problem) -> list[tuple[str, str, str]]:
    """Each number of the instances with its range, and what differs between their hosts."""
    instances, rows = problem.instances, []
    for name, values in instances.numbers.items():
        low, high = values.min(), values.max()
        value = f"{low:.4g}" if low == high else f"{low:.4g} to {high:.4g}"
        rows.append((name, value, "yes" if name in instances.visible else "no" if low != high else "always the same"))
    for name in instances.host_settings[0]:
        choices = sorted({str(settings[name]) for settings in instances.host_settings})
        rows.append((name, ", ".join(choices), "yes" if name in instances.visible else "no"))
    train, test = (len(instances.split(name)) for name in ("train", "test"))
    return [("(instances)", f"{train} to train on, {test} to test on" if len(instances) > 1 else "one", ""), *rows]


def _describe_slots(problem: Problem) -> None:
    costs, add = problem.costs, int(Operator.ADD)
    rows: list[tuple[object, ...]] = [("(host)", "", f"{costs.host_parameters:.0f}", f"{costs.host_compute:.0f}")]
    for slot, spec in enumerate(problem.host.slots):
        for k, name in enumerate(problem.config.blueprints):
            parameters, compute = costs.seed_parameters[slot, k, add], costs.seed_compute[slot, k, add]
            rows.append((f"{spec.name} ({spec.channels} channels)", name, f"{parameters:.0f}", f"{compute:.0f}"))
    print_table("Slots and what can grow there", ("slot", "blueprint", "parameters", "compute per sample"), rows)


def _describe_actions(problem: Problem) -> None:
    table = problem.actions
    rows = []
    for op in Op:
        mine = table.entries[table.op == op]
        if not len(mine):
            continue
        menus = []
        for head in ARGUMENTS[op]:
            used = dict.fromkeys(mine[:, HEADS.index(head)].tolist())  # in order, each once
            menus.append(f"{head}: {', '.join(str(table.menus[head][i]) for i in used)}")
        rows.append((op.name, len(mine), "; ".join(menus)))
    print_table(f"Actions ({table.num_actions}, flat)", ("operation", "entries", "choices"), rows)


def check(env_id: Id) -> None:
    """Run Gymnasium's and stable-baselines3's environment checkers, in both action forms, warnings as errors."""
    PRESETS.get(env_id)
    from stable_baselines3.common.env_checker import check_env as sb3_check_env

    for form in ("flat", "factored"):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            env = gymnasium.make(env_id, action_space=form).unwrapped
            check_env(env)
            console.print(f"[green]ok[/green]  gymnasium check_env          {env_id} {form}")
            sb3_check_env(env)
            console.print(f"[green]ok[/green]  stable-baselines3 check_env  {env_id} {form}")


def data(
    action: Annotated[Literal["list", "fetch", "verify"], tyro.conf.Positional],
    name: Annotated[str | None, tyro.conf.Positional] = None,
) -> None:
    """List datasets and where they are, fetch one, or verify the checksums of one or of all that are here.

    Args:
        action: What to do.
        name: Of the dataset.
    """
    if action == "list":
        rows = [(d.name, f"{d.size / 1e6:.0f} MB", _place(d), d.description) for d in map(DATASETS.get, DATASETS)]
        print_table("Datasets", ("name", "to fetch", "where", "what it is"), rows)
        return
    if action == "fetch":
        chosen = [DATASETS.get(name or "(no name)")]
        _fetch(chosen[0])
    else:
        chosen = [DATASETS.get(n) for n in ([name] if name else DATASETS)]
    for dataset in chosen:
        if name is None and not any(find_file(dataset, file) for file in dataset.files):
            console.print(f"{dataset.name}  {_place(dataset)}", highlight=False)
            continue
        read_all(dataset)
        for path in find(dataset).values():
            console.print(f"[green]ok[/green]  {dataset.name}  {path}", highlight=False)


def _fetch(dataset: Dataset) -> None:
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console) as bar:
        lines = {file.name: bar.add_task(file.name, total=file.size, visible=False) for file in dataset.files}

        def on_progress(file: DataFile, size: int) -> None:
            bar.update(lines[file.name], completed=size, visible=True)

        fetch(dataset, on_progress)


def _place(dataset: Dataset) -> str:
    try:
        return ", ".join(sorted({str(path.parent) for path in find(dataset).values()}))
    except FileNotFoundError:
        return f"not here: kasmina data fetch {dataset.name}"


def bench(
    env_ids: Annotated[tuple[str, ...], tyro.conf.Positional] = ("Kasmina/Digits-v0", "Kasmina/Spirals-v0"),
    sizes: tuple[int, ...] = (1, 8, 64, 256),
    repeats: int = 5,
    steps: int = 3,
    rivals: bool = True,
    memory: bool = True,
    workers: int | None = None,
    growth: int = 0,
    json_file: Annotated[Path | None, tyro.conf.arg(name="json")] = None,
    out: Annotated[Path | None, tyro.conf.arg(aliases=["-o"])] = None,
) -> None:
    """Time steps of populations with a live seed in every slot, beside the single environment and plain PyTorch.

    Args:
        env_ids: Registered ids.
        sizes: Numbers of networks.
        repeats: Of everything, in turn; medians and spread are shown.
        steps: Steps of each repeat.
        rivals: Also the single environment, alone and in stable-baselines3's vectors, and plain PyTorch.
        memory: Also peak memory, each size in a process of its own.
        workers: Processes over which populations are spread as well; by default one for each core, and none on a GPU;
            1 leaves it out.
        growth: Also how cost grows with seeds, slots, blueprints and batch, at so many networks; 0 leaves it out.
        json_file: Write all repeats there.
        out: Write a picture, bench.png, into this directory.
    """
    from kasmina_env.bench import as_json, measure, measure_growth, picture, tables
    from kasmina_env.population.device import num_processes

    crew = num_processes() if workers is None else workers
    if crew < 1:
        raise ValueError(f"`workers` must be at least 1, got {workers}. 1 measures none.")
    if json_file is not None and (json_file.exists() or not json_file.parent.is_dir()):
        raise FileExistsError(f"`json` must be a new file in a folder that exists, got {json_file}. Name another one.")
    found = [measure(env_id, sizes, repeats, steps, rivals, memory, crew) for env_id in env_ids]
    costs = [measure_growth(env_id, growth, repeats) if growth else [] for env_id in env_ids]
    for measured, cost in zip(found, costs, strict=True):
        for table in tables(measured, cost):
            print_table(*table)
    if json_file is not None:
        documents = [as_json(*pair) for pair in zip(found, costs, strict=True)]
        json_file.write_text("[" + ",".join(documents) + "]\n", encoding="utf-8")
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
        picture(found, out / "bench.png")
