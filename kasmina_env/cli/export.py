"""Command that takes a grown network home: export."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import tyro

from kasmina_env.cli.arguments import DEFAULT_ID, TEXT, Count, argument
from kasmina_env.cli.checks import MOST_EPISODES, check_at_least, check_at_most
from kasmina_env.cli.console import say
from kasmina_env.cli.progress import step_counter
from kasmina_env.settings.imports import find_preset
from kasmina_env.settings.presets import PRESETS


def export(
    policy: Annotated[str, tyro.conf.Positional, argument("POLICY")],
    out: Annotated[Path, argument("FILE", None, "-o")] = Path("net.safetensors"),
    env_id: Annotated[str | None, TEXT, argument("ID", f"that of the run or schedule, else {DEFAULT_ID}")] = None,
    episode: Annotated[str, argument("{best,SEED}")] = "best",
    episodes: Count = 16,
) -> None:
    """Grow networks with a policy and write the best one to a file, with what is known about it.

    Args:
        policy: Name of a policy, .py file that registers one, folder of a training run, or JSON file of a schedule.
        out: New file. Its ending is the format: .safetensors for kasmina_env.load_network, .pt2 for
            torch.export.load, or .onnx.
        env_id: Environment to grow in.
        episode: "best" takes the network with the highest score, a seed that of one episode.
        episodes: Held-out episodes to choose the best from.
    """
    if episode != "best" and not episode.isdecimal():
        raise ValueError(f"`episode` must be 'best' or a seed, got {episode!r}. Correct it.")
    check_at_least("episodes", episodes, 1, "Play some.")
    check_at_most("episodes", episodes, MOST_EPISODES, "Play fewer.")

    from kasmina_env.comparison.harvest import harvest
    from kasmina_env.comparison.players import find_source
    from kasmina_env.networks.network_file import check_path, save_network

    check_path(out)
    source = find_source(policy, find_preset(env_id).id if env_id else None)
    seed = None if episode == "best" else int(episode)
    count = (episodes if seed is None else 1) * PRESETS.get(source.preset).config(**source.settings).horizon
    with step_counter("growing", count) as on_step:
        grown = harvest(source, episodes, seed, on_step)
    save_network(grown.network, out, grown.facts, example=grown.test.x[:2])
    facts = grown.facts
    say(
        f"{source.preset}, seed {facts['seed']}: committed score {facts['score']:.3f}, quality on test "
        f"{facts['test_accuracy']:.3f}.\nGrown by: {facts['schedule']}.\nWritten to {out}."
    )
