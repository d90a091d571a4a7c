"""Proximal policy optimisation (Schulman et al. 2017) with masked actions, in one file and without an RL library.

    python agents/single_file_ppo.py Kasmina/Spirals-v0 --steps 40000
    kasmina compare Kasmina/Spirals-v0 --policies wait fixed agents/single_file_ppo.py

All rows play whole episodes side by side, so there is no bootstrapping: an episode is a training run that ends. Invalid
actions get probability zero (Huang & Ontañón 2022). The return is not discounted: its sum is the score.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import gymnasium as gym
import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import nn
from torch.distributions import Categorical

import kasmina_env
from kasmina_env import Policy, Problem, register_policy

WEIGHTS = Path("runs/single_file_ppo.safetensors")


class ActorCritic(nn.Module):
    """Logits of actions and the value of an observation, from two networks."""

    def __init__(self, problem: Problem, width: int = 64) -> None:
        super().__init__()
        size, num_actions = len(problem.observations.names), problem.actions.num_actions
        self.actor, self.critic = (
            nn.Sequential(nn.Linear(size, width), nn.Tanh(), nn.Linear(width, width), nn.Tanh(), nn.Linear(width, out))
            for out in (num_actions, 1)
        )
        # At first an operation with n actions weighs sqrt(n): the long menu of GERMINATE leaves room for WAIT.
        count = np.bincount(problem.actions.op)[problem.actions.op]
        with torch.no_grad():
            self.actor[-1].weight.mul_(0.01)
            self.actor[-1].bias.copy_(-0.5 * torch.tensor(count.tolist()).log())

    def distribution(self, observation: torch.Tensor, mask: torch.Tensor) -> Categorical:
        """Probabilities of the legal actions."""
        return Categorical(logits=self.actor(observation).masked_fill(~mask, -1e9))


@register_policy("single_file_ppo", "PPO without an RL library, from the last run of agents/single_file_ppo.py")
class Learned(Policy):
    """Most likely legal action of the trained network."""

    def __init__(self, problem: Problem) -> None:
        if not WEIGHTS.is_file():
            raise FileNotFoundError(
                f"There is no {WEIGHTS}. Run `python agents/single_file_ppo.py {problem.id}` first."
            )
        self.model = ActorCritic(problem)
        self.model.load_state_dict(load_file(WEIGHTS))

    @torch.no_grad()
    def act(self, observation, mask):
        distribution = self.model.distribution(torch.from_numpy(observation), torch.from_numpy(mask))
        return distribution.logits.argmax(dim=1).numpy()


def collect(env, model, seed):
    """One episode in every row, ``[T, N, ...]`` each.

    Observations, masks, actions, log-probabilities, values, rewards, and whether the episode was still going on.
    """
    observation, info = env.reset(seed=seed)
    is_open, steps = np.ones(env.num_envs, dtype=bool), []
    while is_open.any():
        x, mask = torch.from_numpy(observation), torch.from_numpy(info["action_mask"].astype(bool))
        with torch.no_grad():
            distribution = model.distribution(x, mask)
            action = distribution.sample()
            value = model.critic(x).squeeze(1)
        observation, reward, terminated, _, info = env.step(action.numpy())
        reward = torch.from_numpy(np.where(is_open, reward, 0.0)).float()
        steps.append((x, mask, action, distribution.log_prob(action), value, reward, torch.from_numpy(is_open.copy())))
        is_open &= ~terminated
    return [torch.stack(column) for column in zip(*steps, strict=True)]


def advantages(rewards, values, lam=0.95):
    """Generalised advantage estimation (Schulman et al. 2016) without discount, ``[T, N]``."""
    result, running = torch.zeros_like(rewards), torch.zeros(rewards.shape[1])
    for t in reversed(range(len(rewards))):
        following = values[t + 1] if t + 1 < len(values) else torch.zeros_like(running)
        running = rewards[t] + following - values[t] + lam * running
        result[t] = running
    return result


def update(model, optimizer, batch, epochs=8, size=480, clip=0.2):
    """Improve the policy on one batch of episodes; the mean return."""
    observation, mask, action, log_prob, value, reward, is_open = batch
    advantage = advantages(reward, value)
    target = advantage + value
    flat = [t[is_open] for t in (observation, mask, action, log_prob, advantage, target)]
    for _ in range(epochs):
        for index in torch.randperm(len(flat[0])).split(size):
            x, legal, taken, old, gain, goal = (t[index] for t in flat)
            distribution = model.distribution(x, legal)
            ratio = (distribution.log_prob(taken) - old).exp()
            gain = (gain - gain.mean()) / (gain.std() + 1e-8)
            surrogate = torch.min(ratio * gain, ratio.clamp(1 - clip, 1 + clip) * gain).mean()
            loss = 0.5 * (model.critic(x).squeeze(1) - goal).square().mean() - surrogate
            loss = loss - 0.01 * distribution.entropy().mean()
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 0.5)
            optimizer.step()
    return float(reward.sum(dim=0).mean())


def train(env_id, num_steps, num_envs=64, seed=0, out=WEIGHTS, **settings):
    """Train, print the mean return of every batch of episodes, and save the weights."""
    torch.manual_seed(seed)
    problem = kasmina_env.make_problem(env_id, **settings)
    env = gym.make_vec(env_id, num_envs=num_envs, **settings)
    model = ActorCritic(problem)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3, eps=1e-5)
    returns = []
    for batch in range(max(1, num_steps // (num_envs * problem.horizon))):
        returns.append(update(model, optimizer, collect(env, model, seed=1000 * seed + num_envs * batch)))
        print(f"{(batch + 1) * num_envs * problem.horizon:>8} steps   mean return {returns[-1]:+.3f}")
    env.close()
    out.parent.mkdir(parents=True, exist_ok=True)
    save_file(model.state_dict(), out)
    return returns


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("env_id", nargs="?", default="Kasmina/Spirals-v0")
    parser.add_argument("--steps", type=int, default=40_000)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    train(arguments.env_id, arguments.steps, seed=arguments.seed)
