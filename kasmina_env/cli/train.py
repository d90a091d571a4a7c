"""Command that trains a controller: train."""

from __future__ import annotations

import math
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated

import tyro

from kasmina_env.cli.arguments import DEFAULT_ID, PATH, TEXT, WHOLE, Cluster, Flag, OutFolder, argument
from kasmina_env.cli.checks import check_at_least, check_installed, check_new_folder
from kasmina_env.cli.console import note, say
from kasmina_env.cli.crew import find_workers
from kasmina_env.cli.interrupts import begin_work
from kasmina_env.cli.progress import Advance, progress_bar
from kasmina_env.settings.imports import find_preset, import_words
from kasmina_env.settings.presets import PRESETS


def train(
    env_id: Annotated[
        str | None, tyro.conf.Positional, argument("[ID]", f"that of --config, else {DEFAULT_ID}")
    ] = None,
    out: OutFolder = Path("runs/train"),
    algorithm: Annotated[str | None, TEXT, argument("NAME", "maskable_ppo")] = None,
    config: Annotated[Path | None, PATH, argument("FILE", "those that come with the algorithm")] = None,
    steps: Annotated[int | None, WHOLE, argument("N", "that of the settings")] = None,
    seed: Annotated[int | None, WHOLE, argument("N", "that of the settings")] = None,
    workers: Annotated[
        int | None, WHOLE, argument("N", "one for each core that then has 16 networks, none on a GPU of this machine")
    ] = None,
    cluster: Cluster = None,
    resume: Flag = False,
) -> None:
    """Train a policy with stable-baselines3; writes the model, checkpoints and TensorBoard logs.

    Args:
        env_id: Environment to train on.
        out: New folder for the run.
        algorithm: Learning algorithm: maskable_ppo, ppo, a2c, recurrent_ppo, dqn or qr_dqn.
        config: JSON file of training settings, with fields of kasmina_env.learning.training_config.TrainingConfig.
        steps: Environment steps, all networks together.
        seed: Seed of the policy and the environments.
        workers: Processes, or Ray actors with --cluster, to spread the networks over.
        cluster: Ray cluster on which the networks train; auto joins the one of this machine, or starts it.
        resume: Go on from the last checkpoint in the folder.
    """
    preset = None if env_id is None else find_preset(env_id).id
    if not resume:
        check_new_folder(out, ", or pass --resume")
    if config and algorithm is not None:
        raise ValueError(f"`config` names an algorithm itself, so leave out `algorithm`, got {algorithm!r}.")
    if config and not config.is_file():
        raise FileNotFoundError(f"`config` must be a JSON file that exists, got {config}. Correct the path.")
    if steps is not None:
        check_at_least("steps", steps, 1, "Train for some.")
    check_installed("tensorboard")

    from kasmina_env.learning.checkpoint import CHECKPOINT
    from kasmina_env.learning.time_spent import TimeSpent
    from kasmina_env.learning.train import Progress
    from kasmina_env.learning.train import train as learn
    from kasmina_env.learning.training_config import load_training_config, training_config_path
    from kasmina_env.population.device import find_device, num_processes

    given = {"preset": preset, "total_steps": steps, "seed": seed}
    overrides = {key: value for key, value in given.items() if value is not None}
    path = config or training_config_path(preset or DEFAULT_ID, "maskable_ppo" if algorithm is None else algorithm)
    settings = load_training_config(path, **overrides)
    PRESETS.get(settings.preset)
    most = max(1, settings.num_envs // 16)
    if workers is None and cluster is None:
        workers = min(num_processes(), most)
    crew = find_workers(workers, cluster, most)
    where = str(find_device()) if cluster is None else f"{crew.number} Ray actors"
    banner = (
        f"Training {settings.algorithm} on {settings.preset}: {settings.total_steps} steps, {settings.num_envs} "
        f"networks at a time on {where}."
    )
    advance: Advance | None = None
    spent: TimeSpent | None = None
    with ExitStack() as stack:

        def report(progress: Progress) -> None:
            nonlocal advance, spent
            if advance is None:
                begin_work()
                note(banner)
                advance = stack.enter_context(progress_bar("training", settings.total_steps))
            advance(progress.steps, "" if math.isnan(progress.score) else f"score {progress.score:.3f}")
            spent = progress.spent

        try:
            learn(settings, out, report, resume, crew.number, crew.placement)
        except KeyboardInterrupt as stop:
            if (out / CHECKPOINT).is_file():
                stop.add_note(f"What was trained is in {out}; the same command with --resume goes on.")
            raise
    if spent is not None:
        note(f"Time went into: {spent}.")
    say(f"Trained. Run `kasmina compare {settings.preset} --run {out}{import_words()}` to see it beside the controls.")
