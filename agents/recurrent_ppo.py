"""RecurrentPPO of sb3-contrib: a controller with a memory of the episode.

python agents/recurrent_ppo.py Kasmina/Spirals-v0 --steps 40000
"""

from __future__ import annotations

import argparse

from sb3_contrib import RecurrentPPO
from stable_baselines3.common.vec_env import VecMonitor

import kasmina_env


def train(env_id, num_steps, num_envs=64, seed=0, **settings):
    """A trained model, and the mean return of its last training episodes."""
    # Without masks the choices are made head by head: operation, slot, blueprint and so on.
    venv = kasmina_env.KasminaVecEnv(env_id, num_envs=num_envs, action_space="factored", **settings)
    horizon = venv.env.problem.horizon
    venv = VecMonitor(venv)
    model = RecurrentPPO(
        "MlpLstmPolicy", venv, n_steps=horizon, batch_size=480, n_epochs=8, learning_rate=1e-3, gamma=1.0, seed=seed
    )
    model.learn(num_steps)
    episodes = list(model.ep_info_buffer)
    venv.close()
    return model, sum(episode["r"] for episode in episodes) / len(episodes)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("env_id", nargs="?", default="Kasmina/Spirals-v0")
    parser.add_argument("--steps", type=int, default=40_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", default="runs/agents_recurrent_ppo")
    arguments = parser.parse_args()
    model, mean_return = train(arguments.env_id, arguments.steps, seed=arguments.seed)
    model.save(arguments.out)
    print(f"mean return of the last training episodes {mean_return:+.3f}; saved to {arguments.out}.zip")
