"""Command that plays one episode: rollout."""

from __future__ import annotations

from typing import Annotated

from kasmina_env.cli.arguments import Count, Id, argument
from kasmina_env.cli.checks import check_at_least
from kasmina_env.cli.console import say
from kasmina_env.settings.imports import find_preset


def rollout(
    env_id: Id, policy: Annotated[str, argument("POLICY")] = "random", seed: Count = 0, every: Count = 5
) -> None:
    """Play one episode and show it as text.

    Args:
        env_id: Environment to play.
        policy: Name of a policy, .py file that registers one, folder of a training run, or JSON file of a schedule.
        seed: Seed of the episode.
        every: Steps between two panels.
    """
    import numpy as np

    from kasmina_env.comparison.arms import find_player, find_source
    from kasmina_env.envs.vector_env import KasminaVectorEnv

    preset = find_preset(env_id)
    check_at_least("every", every, 1, "Show some panels.")
    check_at_least("seed", seed, 0, "Name another one.")
    source = find_source(policy, preset.id)
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
            say(f"{panel[0] if panel else ''}\n")
        observation, reward, terminated, _, infos = env.step(action)
        total += float(reward[0])
        if terminated[0]:
            score, quality = infos["committed_score"][0], infos["test_accuracy"][0]
            say(f"committed score {score:.3f}, quality on test {quality:.3f}, return {total:.3f}")
            break
