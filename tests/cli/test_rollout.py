"""The episode that `kasmina rollout` shows is the one that the policy plays anywhere else."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from kasmina_env import KasminaVectorEnv
from kasmina_env.cli.main import run
from kasmina_env.comparison.players import find_player
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


@pytest.mark.parametrize("name", ["end.png", "all.gif"])
def test_an_episode_is_kept_as_picture_or_film(name, tmp_path):
    run(["rollout", SPIRALS, "--policy", "fixed", "--every", "99", "-o", str(tmp_path / name)])
    with Image.open(tmp_path / name) as film:
        assert film.size == (960, 540)
        assert getattr(film, "n_frames", 1) == (1 if name == "end.png" else 25)  # equal frames are one


@pytest.mark.parametrize(
    "name, words", [("x.jpg", "`out` must end in .png, .gif, .mp4"), ("taken.gif", "must be a new file")]
)
def test_what_could_not_be_written_is_refused_before_anything_is_played(name, words, tmp_path, capsys):
    (tmp_path / "taken.gif").write_bytes(b"")
    with pytest.raises(SystemExit):
        run(["rollout", SPIRALS, "-o", str(tmp_path / name)])
    assert words in capsys.readouterr().err
