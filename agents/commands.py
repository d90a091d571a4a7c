"""The commands of `kasmina`; `agents.cli` is the way in."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import numpy as np
import tyro
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from agents.calibrate import USUAL_SIZES, Sizes
from agents.evaluate import Row
from agents.policy import Policy, make_env, names_of
from agents.schedule import describe as describe_schedule
from agents.schedule import save_schedule
from agents.scripted import CONTROLS, find_policy
from kasmina_env import cli as env_cli
from kasmina_env.cli import Id, console, print_table
from kasmina_env.presets import PRESETS
from kasmina_env.shipped import config_path, slug

app = tyro.extras.SubcommandApp()
app.command(name="list")(env_cli.list_ids)
app.command(env_cli.describe)
app.command(env_cli.check)
app.command(env_cli.bench)
app.command(env_cli.data)
Out = Annotated[Path, tyro.conf.arg(aliases=["-o"])]


@app.command
def rollout(env_id: Id, policy: str = "random", seed: int = 0, every: int = 5) -> None:
    """Play one episode and show it as text.

    Args:
        env_id: Registered id.
        policy: Name of a control, or folder of a training run.
        seed: Of the episode.
        every: Steps between two panels.
    """
    PRESETS.get(env_id)
    env = make_env(env_id, 1, render_mode="ansi")
    player = _policy(policy, env_id)
    observation, _ = env.reset(seed=seed)
    total = 0.0
    for step in range(1, env.core.config.horizon + 1):
        action = player.act(observation, env.action_masks())
        last = step == env.core.config.horizon
        if last or step % every == 0:
            panel = env.render()
            console.print(panel[0] if panel else "", highlight=False)
            console.print()
        observation, reward, terminated, _, infos = env.step(action)
        total += float(reward[0])
        if terminated[0]:
            final = infos["final_info"]
            console.print(
                f"committed score {final['committed_score'][0]:.3f}, accuracy on test {final['test_accuracy'][0]:.3f}, "
                f"return {total:.3f}"
            )
            break


@app.command
def train(
    env_id: Id = "Kasmina/Digits-v0",
    out: Out = Path("runs/train"),
    recipe: Path | None = None,
    steps: int | None = None,
    seed: int = 0,
    resume: bool = False,
) -> None:
    """Train a controller with MaskablePPO; writes model.zip, checkpoints and TensorBoard logs.

    Args:
        env_id: Registered id.
        out: New folder for the run.
        recipe: JSON file with fields of `agents.train.Recipe`; default: the one in configs/ for this id.
        steps: Environment steps, in place of the recipe's.
        seed: Of controller and environments.
        resume: Go on from the last checkpoint in the folder.
    """
    from agents.train import load_recipe
    from agents.train import train as learn

    PRESETS.get(env_id)
    if out.exists() and any(out.iterdir()) and not resume:
        raise FileExistsError(f"`out` must be a new or empty folder, got {out}. Name another one, or pass --resume.")
    overrides: dict[str, object] = {"preset": env_id, "seed": seed}
    if steps is not None:
        overrides["total_steps"] = steps
    settings = load_recipe(recipe or config_path(f"{slug(env_id)}.ppo.json", "Give one with --recipe."), **overrides)
    console.print(f"Training on {env_id}: {settings.total_steps} steps, {settings.num_envs} networks at a time.")
    with _bar("training", settings.total_steps) as advance:

        def report(done: int, score: float) -> None:
            advance(done, f"mean committed score {score:.3f}")

        learn(settings, out, report, resume)
    console.print(f"Trained. Run `kasmina compare {env_id} --run {out}` to see it beside the controls.")


@app.command
def compare(
    env_id: Id = "Kasmina/Digits-v0",
    run: tuple[Path, ...] = (),
    episodes: int = 64,
    out: Out = Path("runs/compare"),
) -> None:
    """Play the same held-out episodes with all controls and trained runs; writes a table, JSON, CSV and pictures.

    Args:
        env_id: Registered id.
        run: Folders of training runs, all of one recipe.
        episodes: Held-out episodes for each.
        out: Folder for the results.
    """
    from agents.evaluate import compare as play_all
    from agents.evaluate import favourites, table, write
    from agents.plots import plot_comparison

    PRESETS.get(env_id)
    policies = {name: [_policy(name, env_id)] for name in CONTROLS}
    if run:
        policies["learned"] = [_policy(str(folder), env_id) for folder in run]
    count = episodes * sum(len(runs) for runs in policies.values()) * PRESETS.get(env_id).config().horizon
    done = 0
    with _bar("playing", count) as advance:

        def on_step(steps: int) -> None:
            nonlocal done
            done += steps
            advance(done, "")

        arms, names = play_all(env_id, policies, episodes, on_step=on_step)
    rows = table(arms, names, learned=("learned",))
    write(out, env_id, rows, arms, names)
    plot_comparison(out / "comparison.png", env_id, arms, rows, names, run)
    _print_comparison(f"{env_id}: {episodes} held-out episodes, the same for all; intervals 95 %", rows)
    for arm in arms:
        times, schedule = favourites(arm, names, 1)[0]
        if arm.name in ("learned", "fixed"):
            console.print(f"{arm.name} most often ({times} of {episodes * len(arm.runs)}): {schedule}", highlight=False)
    console.print(f"Written to {out}.")


@app.command
def search(env_id: Id = "Kasmina/Digits-v0", out: Path | None = None, seed: int = 0) -> None:
    """Search for the best fixed schedule, the control a learner must beat.

    Args:
        env_id: Registered id.
        out: JSON file to write; default: configs/<id>.schedule.json here.
        seed: Of the search.
    """
    from agents.search import num_search_steps
    from agents.search import search as find

    PRESETS.get(env_id)
    done = 0
    with _bar("searching", num_search_steps(env_id)) as advance:

        def on_step(steps: int) -> None:
            nonlocal done
            done += steps
            advance(done, "")

        actions, returns = find(env_id, seed, on_step)
    names = names_of(make_env(env_id, 1))
    path = out or Path("configs") / f"{slug(env_id)}.schedule.json"
    about = {"command": f"kasmina search {env_id} --seed {seed}", "mean_return": float(np.mean(returns))}
    save_schedule(path, env_id, names, actions, about)
    console.print(f"{describe_schedule(actions, names)}", highlight=False)
    console.print(f"Mean return {np.mean(returns):.3f} on {len(returns)} seeds of the search. Written to {path}.")


@app.command
def calibrate(
    env_id: Id = "Kasmina/Digits-v0",
    out: Path | None = None,
    seed: int = 0,
    sizes: Annotated[Sizes, tyro.conf.arg(name="")] = USUAL_SIZES,
) -> None:
    """Measure how much decisions matter: five gaps in units of their noise, shown by `describe` from then on.

    Args:
        env_id: Registered id.
        out: JSON file to write; default: configs/<id>.calibration.json here.
        seed: Of schedules and episodes.
        sizes: How much to measure.
    """
    from agents.calibrate import calibrate as find
    from agents.calibrate import command_of, num_calibration_steps, save_calibration

    PRESETS.get(env_id)
    done = 0
    with _bar("measuring", num_calibration_steps(env_id, sizes)) as advance:

        def on_step(steps: int) -> None:
            nonlocal done
            done += steps
            advance(done, "")

        found = find(env_id, sizes, seed, on_step=on_step)
    path = out or Path("configs") / f"{slug(env_id)}.calibration.json"
    save_calibration(path, found, command_of(env_id, sizes, seed))
    env_cli.print_calibration(path)
    console.print(f"Written to {path}.")


@app.command
def export(
    run: Id,
    out: Out = Path("net.safetensors"),
    env_id: str | None = None,
    episode: str = "best",
    episodes: int = 16,
) -> None:
    """Grow networks and take one home; writes its weights, and beside them JSON that says what it is and how good.

    Args:
        run: Folder of a training run, JSON file of a schedule, or name of a control.
        out: New file: .safetensors for kasmina_env.load_network, .pt2 for torch.export.load, or .onnx.
        env_id: Registered id, for a control; default: Kasmina/Digits-v0.
        episode: "best" of the held-out episodes by committed score, or the seed of one to play alone.
        episodes: Held-out episodes to choose from.
    """
    from agents.export import find_source, harvest
    from kasmina_env.population.saved import check_path, save_network

    if episode != "best" and not episode.isdecimal():
        raise ValueError(f"`episode` must be 'best' or a seed, got {episode!r}. Correct it.")
    if episodes < 1:
        raise ValueError(f"`episodes` must be at least 1, got {episodes}. Play some.")
    check_path(out)
    source = find_source(run, env_id)
    seed = None if episode == "best" else int(episode)
    count = (episodes if seed is None else 1) * PRESETS.get(source.preset).config(**source.settings).horizon
    done = 0
    with _bar("growing", count) as advance:

        def on_step(steps: int) -> None:
            nonlocal done
            done += steps
            advance(done, "")

        grown = harvest(source, episodes, seed, on_step)
    save_network(grown.network, out, grown.facts, example=grown.test.x[:2])
    facts = grown.facts
    console.print(
        f"{source.preset}, seed {facts['seed']}: committed score {facts['score']:.3f}, accuracy on test "
        f"{facts['test_accuracy']:.3f}.\nGrown by: {facts['schedule']}.\nWritten to {out}, described in "
        f"{out.with_suffix('.json')}.",
        highlight=False,
    )


def _print_comparison(title: str, rows: Sequence[Row]) -> None:
    lines = [
        (
            r.arm,
            f"{r.mean_return.value:.3f} ± {(r.mean_return.high - r.mean_return.low) / 2:.3f}",
            f"{r.score:.3f}",
            f"{r.test_accuracy:.3f}",
            f"+{r.param_growth:.0%}",
            f"+{r.compute:.0%}",
            "" if r.share_of_best is None else f"{r.share_of_best:.1%}",
            f"{r.prune_share:.1%}",
        )
        for r in rows
    ]
    print_table(title, ("arm", "return", "score", "test", "params", "compute", "wait→fixed", "PRUNE"), lines)
    console.print(
        "return: committed score - first score - costs; score: committed, on outer_valid;\n"
        "test: accuracy of what is kept; params: fossilized over the host's;\n"
        "compute: of all seeds over the host's, mean over the episode.\n"
        f"Actions that were not legal: {sum(r.illegal for r in rows)}.",
        highlight=False,
    )


def _policy(name: str, env_id: str) -> Policy:
    return find_policy(name, env_id, names_of(make_env(env_id, 1)))


Advance = Callable[[int, str], None]  # steps done in all, and a remark


@contextmanager
def _bar(verb: str, total: int) -> Iterator[Advance]:
    """A progress bar; yields a function of steps done and a remark."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.completed}/{task.total} steps"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[remark]}"),
    )
    with Progress(*columns, console=console) as progress:
        task = progress.add_task(verb, total=total, remark="")

        def advance(done: int, remark: str) -> None:
            progress.update(task, completed=min(done, total), remark=remark)

        yield advance


def run(arguments: list[str] | None = None) -> None:
    """Run a command. What a user got wrong is said in one sentence, with exit status 2."""
    try:
        app.cli(args=arguments, prog="kasmina", description="Grow neural networks while they train.")
    except (
        ValueError,
        FileExistsError,
        FileNotFoundError,
        ConnectionError,
        KeyError,
        ModuleNotFoundError,
    ) as error:
        console.print(f"[red]error:[/red] {error}", highlight=False)
        sys.exit(2)
    except KeyboardInterrupt:
        console.print("Interrupted. What was written is kept; `kasmina train ... --resume` goes on.")
        sys.exit(130)
