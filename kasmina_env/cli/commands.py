"""The commands of `kasmina`; `kasmina_env.cli.main` is the way in."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import numpy as np
import tyro
from torch import OutOfMemoryError

from kasmina_env.cli import environments as env_cli
from kasmina_env.cli.compare import compare
from kasmina_env.cli.environments import Id, console
from kasmina_env.cli.paths import check_new_file, check_new_folder
from kasmina_env.cli.progress import progress_bar, step_counter
from kasmina_env.comparison.arms import find_player, find_source
from kasmina_env.comparison.calibrate import USUAL_SIZES, Sizes
from kasmina_env.controllers.per_context import save_contexts
from kasmina_env.controllers.schedule import describe as describe_schedule
from kasmina_env.controllers.schedule import save_schedule
from kasmina_env.envs.vector_env import KasminaVectorEnv
from kasmina_env.episode.problem import make_problem
from kasmina_env.population.device import find_device, num_processes
from kasmina_env.settings.configs import FOUND, slug
from kasmina_env.settings.machine import DEVICE, on_this_device
from kasmina_env.settings.presets import PRESETS
from kasmina_env.settings.registry import UnknownNameError

app = tyro.extras.SubcommandApp()
app.command(name="list")(env_cli.list_ids)
app.command(env_cli.describe)
app.command(env_cli.check)
app.command(env_cli.bench)
app.command(env_cli.data)
app.command(compare)
Out = Annotated[Path, tyro.conf.arg(aliases=["-o"])]
DEFAULT_ID = "Kasmina/Digits-v0"
DESCRIPTION = f"Grow neural networks while they train: on the CPU, or where {DEVICE} says, such as {DEVICE}=cuda."


@app.command
def rollout(env_id: Id, policy: str = "random", seed: int = 0, every: int = 5) -> None:
    """Play one episode and show it as text.

    Args:
        env_id: Registered id.
        policy: Name of a control, folder of a training run, or JSON file of a schedule.
        seed: Of the episode.
        every: Steps between two panels.
    """
    PRESETS.get(env_id)
    if every < 1:
        raise ValueError(f"`every` must be at least 1, got {every}. Show some panels.")
    source = find_source(policy, env_id)
    player = find_player(source.name, source.preset, **source.settings)
    env = KasminaVectorEnv(1, player.problem, render_mode="ansi")
    observation, _ = env.reset(seed=seed, options=None if player.planted is None else {"planted": player.planted})
    player.policy.begin(np.array([seed]), env.episodes)
    total = 0.0
    for step in range(1, env.problem.horizon + 1):
        action = player.policy.act(observation, env.action_masks())
        last = step == env.problem.horizon
        if last or step % every == 0:
            panel = env.render()
            console.print(panel[0] if panel else "", highlight=False)
            console.print()
        observation, reward, terminated, _, infos = env.step(action)
        total += float(reward[0])
        if terminated[0]:
            console.print(
                f"committed score {infos['committed_score'][0]:.3f}, quality on test {infos['test_accuracy'][0]:.3f}, "
                f"return {total:.3f}"
            )
            break


@app.command
def train(
    env_id: Annotated[str | None, tyro.conf.Positional] = None,
    out: Out = Path("runs/train"),
    algorithm: str | None = None,
    recipe: Path | None = None,
    steps: int | None = None,
    seed: int | None = None,
    workers: int | None = None,
    resume: bool = False,
) -> None:
    """Train a controller; writes model.zip, checkpoints and TensorBoard logs.

    Args:
        env_id: Registered id; default: that of the recipe given, else Kasmina/Digits-v0.
        out: New folder for the run.
        algorithm: Whose recipe in configs/ is taken: maskable_ppo (default), ppo, a2c, recurrent_ppo, dqn or qr_dqn.
        recipe: JSON file with fields of `kasmina_env.learning.training_config.Recipe`, in place of that.
        steps: Environment steps, in place of the recipe's.
        seed: Of controller and environments, in place of the recipe's.
        workers: Processes over which the networks are spread; by default one for each core that then has 16 of them,
            and none on a GPU.
        resume: Go on from the last checkpoint in the folder.
    """
    from kasmina_env.learning.train import train as learn
    from kasmina_env.learning.training_config import load_recipe, recipe_path

    if not resume:
        check_new_folder(out, ", or pass --resume")
    if recipe and algorithm:
        raise ValueError(f"`algorithm` must be left to the recipe given, got {algorithm!r}. Leave one of them out.")
    given = {"preset": env_id, "total_steps": steps, "seed": seed}
    overrides = {key: value for key, value in given.items() if value is not None}
    path = recipe or recipe_path(env_id or DEFAULT_ID, algorithm or "maskable_ppo")
    settings = load_recipe(path, **overrides)
    PRESETS.get(settings.preset)
    console.print(
        f"Training {settings.algorithm} on {settings.preset}: {settings.total_steps} steps, {settings.num_envs} "
        f"networks at a time on {find_device()}."
    )
    with progress_bar("training", settings.total_steps) as advance:

        def report(done: int, score: float) -> None:
            advance(done, f"mean committed score {score:.3f}")

        crew = max(1, min(num_processes(), settings.num_envs // 16)) if workers is None else workers
        learn(settings, out, report, resume, crew)
    console.print(f"Trained. Run `kasmina compare {settings.preset} --run {out}` to see it beside the controls.")


@app.command
def search(
    env_id: Id = DEFAULT_ID,
    out: Path | None = None,
    seed: int = 0,
    per_context: bool = False,
    facts: tuple[str, ...] = (),
    overwrite: bool = False,
) -> None:
    """Search for the best fixed schedule, the control a learner must beat.

    Args:
        env_id: Registered id.
        out: JSON file to write; default: configs/<id>.schedule.json here, or configs/<id>.per_context.json.
        seed: Of the search.
        per_context: Search for a schedule for each context, a cell of a grid over what is visible of an instance.
        facts: Visible facts that span the grid; default: all.
        overwrite: Replace the file if it exists.
    """
    from kasmina_env.controllers import search as searching

    PRESETS.get(env_id)
    if facts and not per_context:
        raise ValueError(f"`facts` must be left out without --per-context, got {', '.join(facts)}. Pass both or none.")
    path = out or FOUND / f"{slug(env_id)}.{'per_context' if per_context else 'schedule'}.json"
    check_new_file(path, overwrite)
    problem = make_problem(env_id)
    command = on_this_device(f"kasmina search {env_id} --seed {seed}")
    total = searching.num_search_steps(problem, per_context, facts)
    with step_counter("searching", total) as on_step:
        if per_context:
            cells = searching.search_contexts(problem, seed, facts, on_step)
        else:
            found = searching.search(problem, seed, on_step)
    if per_context:
        command += " --per-context" + "".join(f" --facts {' '.join(facts)}" for _ in facts[:1])
        contexts = [(cell, best.actions, float(best.returns.mean())) for cell, best in cells]
        save_contexts(path, problem, contexts, {"command": command})
        for cell, actions, value in contexts:
            where = ", ".join(f"{name} {low:.2f} to {high:.2f}" for name, (low, high) in cell.bounds.items())
            console.print(f"{where}: {value:.3f}, {describe_schedule(actions, problem.actions)}", highlight=False)
    else:
        value = float(found.returns.mean())
        save_schedule(path, problem, found.actions, {"command": command, "mean_return": value})
        console.print(describe_schedule(found.actions, problem.actions), highlight=False)
        console.print(f"Mean return {value:.3f} on {len(found.returns)} episodes of the search.")
    console.print(f"Written to {path}.")


@app.command
def calibrate(
    env_id: Id = DEFAULT_ID,
    out: Path | None = None,
    seed: int = 0,
    sizes: Annotated[Sizes, tyro.conf.arg(name="")] = USUAL_SIZES,
    overwrite: bool = False,
) -> None:
    """Measure how much decisions matter: five gaps in units of their noise, shown by `describe` from then on.

    Args:
        env_id: Registered id.
        out: JSON file to write; default: configs/<id>.calibration.json here.
        seed: Of schedules and episodes.
        sizes: How much to measure.
        overwrite: Replace the file if it exists.
    """
    from kasmina_env.comparison.calibrate import calibrate as find
    from kasmina_env.comparison.calibrate import command_of, num_calibration_steps, save_calibration

    PRESETS.get(env_id)
    path = out or FOUND / f"{slug(env_id)}.calibration.json"
    check_new_file(path, overwrite)
    with step_counter("measuring", num_calibration_steps(env_id, sizes)) as on_step:
        found = find(env_id, sizes, seed, on_step=on_step)
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
    """Grow networks and take one home, in one file that also says what it is and how good.

    Args:
        run: Folder of a training run, JSON file of a schedule, or name of a control.
        out: New file: .safetensors for kasmina_env.load_network, .pt2 for torch.export.load, or .onnx.
        env_id: Registered id, for a control; default: Kasmina/Digits-v0.
        episode: "best" of the held-out episodes by committed score, or the seed of one to play alone.
        episodes: Held-out episodes to choose from.
    """
    from kasmina_env.comparison.harvest import harvest
    from kasmina_env.networks.network_file import check_path, save_network

    if episode != "best" and not episode.isdecimal():
        raise ValueError(f"`episode` must be 'best' or a seed, got {episode!r}. Correct it.")
    if episodes < 1:
        raise ValueError(f"`episodes` must be at least 1, got {episodes}. Play some.")
    check_path(out)
    source = find_source(run, env_id)
    seed = None if episode == "best" else int(episode)
    count = (episodes if seed is None else 1) * PRESETS.get(source.preset).config(**source.settings).horizon
    with step_counter("growing", count) as on_step:
        grown = harvest(source, episodes, seed, on_step)
    save_network(grown.network, out, grown.facts, example=grown.test.x[:2])
    facts = grown.facts
    console.print(
        f"{source.preset}, seed {facts['seed']}: committed score {facts['score']:.3f}, quality on test "
        f"{facts['test_accuracy']:.3f}.\nGrown by: {facts['schedule']}.\nWritten to {out}.",
        highlight=False,
    )


def run(arguments: list[str] | None = None) -> None:
    """Run a command. What a user got wrong is said in one sentence, with exit status 2."""
    try:
        app.cli(args=arguments, prog="kasmina", description=DESCRIPTION)
    except (ValueError, OSError, UnknownNameError, ModuleNotFoundError) as error:
        console.print(f"[red]error:[/red] {error}", highlight=False)
        sys.exit(2)
    except OutOfMemoryError as error:
        reason = str(error).splitlines()[0].split(". ")[0]
        console.print(f"[red]error:[/red] {reason}. Train fewer networks at a time, or on another device.")
        sys.exit(2)
    except KeyboardInterrupt:
        is_training = (arguments or sys.argv[1:])[:1] == ["train"]
        kept = " What was written is kept; the same command with --resume goes on." if is_training else ""
        console.print(f"Interrupted.{kept}")
        sys.exit(130)
