"""DQN of stable-baselines3, which knows no masks: an action that is not legal counts as WAIT.

python agents/dqn.py Kasmina/Spirals-v0 --steps 40000
"""

from __future__ import annotations

import argparse

from stable_baselines3 import DQN
from stable_baselines3.common.vec_env import VecMonitor

import kasmina_env


def train(env_id, num_steps, num_envs=16, seed=0, **settings):
    """A trained model, and the mean return of its last training episodes."""
    venv = VecMonitor(kasmina_env.KasminaVecEnv(env_id, num_envs=num_envs, **settings))
    model = DQN(
        "MlpPolicy",
        venv,
        learning_rate=1e-3,
        gamma=1.0,
        learning_starts=min(1_000, num_steps // 4),
        train_freq=1,
        gradient_steps=4,
        target_update_interval=500,
        seed=seed,
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
    parser.add_argument("--out", default="runs/agents_dqn")
    arguments = parser.parse_args()
    model, mean_return = train(arguments.env_id, arguments.steps, seed=arguments.seed)
    model.save(arguments.out)
    print(f"mean return of the last training episodes {mean_return:+.3f}; saved to {arguments.out}.zip")
