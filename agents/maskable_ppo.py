"""MaskablePPO of sb3-contrib on the native vector environment: the masks of illegal actions are found by themselves.

python agents/maskable_ppo.py Kasmina/Spirals-v0 --steps 40000
"""

from __future__ import annotations

import argparse

from sb3_contrib import MaskablePPO
from stable_baselines3.common.vec_env import VecMonitor

import kasmina_env


def train(env_id, num_steps, num_envs=64, seed=0, **settings):
    """A trained model, and the mean return of its last training episodes."""
    horizon = kasmina_env.make_problem(env_id, **settings).horizon
    venv = VecMonitor(kasmina_env.KasminaVecEnv(env_id, num_envs=num_envs, **settings))
    # An episode is a training run: its return is its score, which is not discounted, and a rollout is whole episodes.
    model = MaskablePPO(
        "MlpPolicy", venv, n_steps=horizon, batch_size=480, n_epochs=8, learning_rate=1e-3, gamma=1.0, seed=seed
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
    parser.add_argument("--out", default="runs/agents_maskable_ppo")
    arguments = parser.parse_args()
    model, mean_return = train(arguments.env_id, arguments.steps, seed=arguments.seed)
    model.save(arguments.out)
    print(f"mean return of the last training episodes {mean_return:+.3f}; saved to {arguments.out}.zip")
