"""PPO of Tianshou with masked actions: the actor reads the mask beside the observation.

python agents/tianshou_ppo.py Kasmina/Spirals-v0 --steps 40000
"""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path

import gymnasium as gym
import torch
from safetensors.torch import save_file
from tianshou.algorithm import PPO
from tianshou.algorithm.modelfree.reinforce import DiscreteActorPolicy
from tianshou.algorithm.optim import AdamOptimizerFactory
from tianshou.data import Collector, VectorReplayBuffer
from tianshou.env import DummyVectorEnv
from tianshou.trainer import OnPolicyTrainerParams
from torch import nn
from torch.distributions import Categorical

import kasmina_env


def mlp(num_inputs, num_outputs):
    """Two hidden layers."""
    return nn.Sequential(nn.Linear(num_inputs, 64), nn.Tanh(), nn.Linear(64, 64), nn.Tanh(), nn.Linear(64, num_outputs))


class Actor(nn.Module):
    """Logits of actions; those of illegal ones are out of reach."""

    def __init__(self, size, num_actions):
        super().__init__()
        self.net = mlp(size, num_actions)

    def forward(self, obs, state=None, info=None):
        logits = self.net(torch.as_tensor(obs.observations))
        return logits.masked_fill(torch.as_tensor(obs.action_mask) == 0, -1e9), state


class Critic(nn.Module):
    """Value of an observation."""

    def __init__(self, size):
        super().__init__()
        self.net = mlp(size, 1)

    def forward(self, obs, state=None, info=None):
        return self.net(torch.as_tensor(obs.observations))


def make(env_id, num_envs=16, seed=0, **settings):
    """The algorithm and the collector of its episodes."""
    torch.manual_seed(seed)
    make_one = partial(gym.make, env_id, observation="dict", **settings)
    envs = DummyVectorEnv([make_one] * num_envs)
    envs.seed(seed)
    size, actions = envs.observation_space[0]["observations"].shape[0], envs.action_space[0]
    policy = DiscreteActorPolicy(
        actor=Actor(size, actions.n), dist_fn=lambda logits: Categorical(logits=logits), action_space=actions
    )
    optim = AdamOptimizerFactory(lr=1e-3)
    algorithm = PPO(policy=policy, critic=Critic(size), optim=optim, gamma=1.0, gae_lambda=0.95, max_grad_norm=0.5)
    horizon = kasmina_env.make_problem(env_id, **settings).horizon
    return algorithm, Collector(algorithm, envs, VectorReplayBuffer(num_envs * horizon, num_envs))


def train(env_id, num_steps, num_envs=16, seed=0, **settings):
    """A trained algorithm, and the mean return of its last training episodes."""
    algorithm, collector = make(env_id, num_envs, seed, **settings)
    algorithm.run_training(
        OnPolicyTrainerParams(
            max_epochs=1,
            epoch_num_steps=num_steps,
            training_collector=collector,
            collection_step_num_env_steps=None,
            collection_step_num_episodes=num_envs,
            batch_size=480,
            update_step_num_repetitions=8,
        )
    )
    with torch.no_grad():
        mean_return = collector.collect(n_episode=num_envs, reset_before_collect=True).returns.mean()
    return algorithm, float(mean_return)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("env_id", nargs="?", default="Kasmina/Spirals-v0")
    parser.add_argument("--steps", type=int, default=40_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("runs/agents_tianshou_ppo.safetensors"))
    arguments = parser.parse_args()
    algorithm, mean_return = train(arguments.env_id, arguments.steps, seed=arguments.seed)
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    save_file(algorithm.policy.state_dict(), arguments.out)
    print(f"mean return of the trained controller's episodes {mean_return:+.3f}; saved to {arguments.out}")
