"""Command that keeps episodes for learning offline: record."""

from __future__ import annotations

from typing import Annotated

from kasmina_env.cli.arguments import Count, Id, argument
from kasmina_env.cli.checks import check_at_least, check_installed
from kasmina_env.cli.console import say
from kasmina_env.cli.progress import step_counter
from kasmina_env.settings.imports import find_preset
from kasmina_env.settings.presets import PRESETS


def record(
    env_id: Id,
    out: Annotated[str, argument("DATASET", None, "-o")],
    policy: Annotated[str, argument("POLICY")] = "random",
    episodes: Count = 64,
    seed: Count = 0,
) -> None:
    """Play episodes with a policy and keep them as a Minari dataset.

    Args:
        env_id: Environment to play.
        out: New id of the dataset, such as kasmina/digits/fixed-v0. MINARI_DATASETS_PATH says where datasets lie.
        policy: Name of a policy, .py file that registers one, folder of a training run, or JSON file of a schedule.
        episodes: Number of episodes.
        seed: Seed of the first episode.
    """
    check_at_least("episodes", episodes, 1, "Play some.")
    check_at_least("seed", seed, 0, "Name another one.")
    preset = find_preset(env_id)
    for module in ("minari", "h5py"):
        check_installed(module)

    from kasmina_env.comparison.minari_dataset import check_new_dataset, record_dataset
    from kasmina_env.comparison.players import find_source

    check_new_dataset(out)
    source = find_source(policy, preset.id)
    count = episodes * PRESETS.get(source.preset).config(**source.settings).horizon
    with step_counter("playing", count) as on_step:
        dataset = record_dataset(out, source, episodes, seed, on_step=on_step)
    say(f"{dataset.total_episodes} episodes, {dataset.total_steps} steps: minari.load_dataset({out!r})")
