"""Commands that play one episode: rollout and replay."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import tyro

from kasmina_env.cli.arguments import Count, Flag, Id, argument
from kasmina_env.cli.checks import check_at_least, check_new_file
from kasmina_env.cli.console import say
from kasmina_env.settings.imports import find_preset


def rollout(
    env_id: Id,
    policy: Annotated[str, argument("POLICY")] = "random",
    seed: Count = 0,
    every: Count = 5,
    log: Annotated[Path | None, argument("FILE", "no log")] = None,
    out: Annotated[Path | None, argument("FILE", "no picture", "-o")] = None,
) -> None:
    """Play one episode and show it as text, and as a picture or film.

    Args:
        env_id: Environment to play.
        policy: Name of a policy, .py file that registers one, folder of a training run, or JSON file of a schedule or
            of rules.
        seed: Seed of the episode.
        every: Steps between two panels.
        log: New JSON file from which `kasmina replay` plays the same episode again.
        out: New .png of the end of the episode, or .gif or .mp4 of all of it.
    """
    import numpy as np

    from kasmina_env.cli.film import check_new_film, picture_of, save_film
    from kasmina_env.comparison.episode_log import log_of, save_log
    from kasmina_env.comparison.players import find_player, find_source
    from kasmina_env.envs.env import KasminaEnv
    from kasmina_env.episode.actions import WAIT
    from kasmina_env.population import ENGINES

    preset = find_preset(env_id)
    check_at_least("every", every, 1, "Show some panels.")
    check_at_least("seed", seed, 0, "Name another one.")
    if log is not None:
        check_new_file(log, otherwise="", name="log")
    if out is not None:
        check_new_film(out)
    source = find_source(policy, preset.id)
    player = find_player(source.name, source.preset, **source.settings)
    env, planted = KasminaEnv(player.problem, render_mode="ansi"), player.planted
    observation, info = env.reset(seed=seed, options=None if planted is None else {"planted": planted})
    player.policy.begin(np.array([seed]), env.episodes)
    total, is_over, step, scores, actions = 0.0, False, 0, [info["score"]], list[int]()
    frames = [picture_of(env)] if out else []
    while not is_over:
        step += 1
        action = int(player.policy.act(observation[None], env.action_masks()[None])[0])
        if step % every == 0 or step == env.problem.horizon:
            say(f"{env.render()}\n")
        observation, reward, is_over, _, info = env.step(action)
        total += reward
        scores.append(info["score"])
        actions.append(action if info["action_legal"] else WAIT)
        if out:
            frames.append(picture_of(env))
    say(
        f"committed score {info['committed_score']:.3f}, quality on test {info['test_accuracy']:.3f}, "
        f"return {total:.3f}"
    )
    if out is not None:
        save_film(out, frames)
        say(f"Written to {out}.")
    if log is not None:
        engine, instance = ENGINES[info["engine"]], info["instance"]
        seeds = () if planted is None else planted
        save_log(log, log_of(player.problem, engine, 1, seed, instance, seeds, actions, scores))


def replay(
    log: Annotated[Path, tyro.conf.Positional, argument("FILE")], verify: Flag = False, render: Flag = False
) -> None:
    """Play an episode again from its log.

    Args:
        log: JSON file that `kasmina rollout --log` wrote.
        verify: Compare every action and score with the log; exit status 1 and the first difference where they differ.
        render: Show a panel of text after every step.
    """
    from kasmina_env.comparison.episode_log import ELSEWHERE, first_difference, load_log, why_inexact
    from kasmina_env.comparison.episode_log import replay as play_again

    found = load_log(log)
    again = play_again(found, (lambda env: say(f"{env.render()}\n")) if render else (lambda env: None))
    last = again.scores[-1]
    say(f"{found.id}, seed {found.seed}, instance {found.instance}: {len(again.is_legal)} steps, score {last:.3f}.")
    if not verify:
        return
    reason, difference = why_inexact(found), first_difference(found, again)
    if difference:
        say(difference + (f" More than {ELSEWHERE} is not allowed, although {reason}." if reason else ""))
        sys.exit(1)
    say(f"Every score is within {ELSEWHERE} of the log: {reason}." if reason else "Every score is that of the log.")
