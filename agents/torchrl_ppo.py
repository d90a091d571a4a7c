"""PPO of TorchRL with masked actions, on the native vector environment.

python agents/torchrl_ppo.py Kasmina/Spirals-v0 --steps 40000
"""

from __future__ import annotations

import argparse
from pathlib import Path

import gymnasium as gym
import torch
from safetensors.torch import save_file
from tensordict.nn import InteractionType, TensorDictModule
from torch import nn
from torchrl.envs import ActionMask, Compose, DTypeCastTransform, GymWrapper, RewardSum, TransformedEnv
from torchrl.modules import MaskedCategorical, ProbabilisticActor, ValueOperator
from torchrl.objectives import ClipPPOLoss
from torchrl.objectives.value import GAE

import kasmina_env


def wrap(env):
    """A Gymnasium environment, single or vector, as one of TorchRL in which only legal actions are random ones."""
    masks = DTypeCastTransform(torch.int8, torch.bool, in_keys=["action_mask"])
    wrapped = GymWrapper(env, categorical_action_encoding=True, device="cpu")
    return TransformedEnv(wrapped, Compose(masks, ActionMask(), RewardSum()))


def make_env(env_id, num_envs=64, **settings):
    """Rows of one network each, which TorchRL resets itself."""
    return wrap(gym.make_vec(env_id, num_envs=num_envs, observation="dict", autoreset_mode="DISABLED", **settings))


def mlp(num_inputs, num_outputs):
    """Two hidden layers."""
    return nn.Sequential(nn.Linear(num_inputs, 64), nn.Tanh(), nn.Linear(64, 64), nn.Tanh(), nn.Linear(64, num_outputs))


def train(env_id, num_steps, num_envs=64, seed=0, **settings):
    """A trained actor, and the mean return of its last training episodes."""
    torch.manual_seed(seed)
    env = make_env(env_id, num_envs, **settings)
    env.set_seed(seed)
    horizon = kasmina_env.make_problem(env_id, **settings).horizon
    size, num_actions = env.observation_spec["observations"].shape[-1], env.action_spec.space.n
    actor = ProbabilisticActor(
        TensorDictModule(mlp(size, num_actions), ["observations"], ["logits"]),
        in_keys={"logits": "logits", "mask": "action_mask"},
        distribution_class=MaskedCategorical,
        default_interaction_type=InteractionType.RANDOM,  # TorchRL's own default is the most likely action
        return_log_prob=True,
    )
    critic = ValueOperator(mlp(size, 1), in_keys=["observations"])
    advantage = GAE(gamma=1.0, lmbda=0.95, value_network=critic)
    loss = ClipPPOLoss(actor, critic, clip_epsilon=0.2, entropy_bonus=False, normalize_advantage=True)
    optimizer = torch.optim.Adam(loss.parameters(), lr=1e-3)
    mean_return = float("nan")
    for _ in range(max(1, num_steps // (num_envs * horizon))):
        with torch.no_grad():
            episodes = advantage(env.rollout(horizon, actor, break_when_any_done=False))
        mean_return = float(episodes["next", "episode_reward"][episodes["next", "done"]].mean())
        steps = episodes.reshape(-1)
        for _ in range(8):
            for index in torch.randperm(len(steps)).split(480):
                losses = loss(steps[index])
                optimizer.zero_grad()
                (losses["loss_objective"] + losses["loss_critic"]).backward()
                nn.utils.clip_grad_norm_(loss.parameters(), 0.5)
                optimizer.step()
    env.close()
    return actor, mean_return


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("env_id", nargs="?", default="Kasmina/Spirals-v0")
    parser.add_argument("--steps", type=int, default=40_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("runs/agents_torchrl_ppo.safetensors"))
    arguments = parser.parse_args()
    actor, mean_return = train(arguments.env_id, arguments.steps, seed=arguments.seed)
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    save_file(actor.state_dict(), arguments.out)
    print(f"mean return of the last training episodes {mean_return:+.3f}; saved to {arguments.out}")
