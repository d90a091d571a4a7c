"""The episode that `kasmina rollout` shows is the one that the policy plays anywhere else."""

from __future__ import annotations

import numpy as np
import pytest

from kasmina_env import KasminaVectorEnv
from kasmina_env.cli.main import run
from kasmina_env.comparison.arms import find_player
from kasmina_env.controllers.policy import play

SPIRALS = "Kasmina/Spirals-v0"


@pytest.mark.parametrize("policy", ["wait", "random", "plateau", "fixed", "instant", "static_final"])
def test_it_shows_the_episode_of_the_seed(policy, capsys):
    run(["rollout", SPIRALS, "--policy", policy, "--seed", "3", "--every", "12"])
    player = find_player(policy, SPIRALS)
    played = play(KasminaVectorEnv(1, player.problem), player.policy, np.array([3]), planted=player.planted)
    assert (
        f"committed score {played.scores[0]:.3f}, quality on test {played.test_accuracies[0]:.3f}, "
        f"return {played.returns[0]:.3f}"
    ) in " ".join(capsys.readouterr().out.split())
