"""PPO of RLlib with masked actions, on its new API stack and the native vector environment.

python agents/rllib_ppo.py Kasmina/Spirals-v0 --steps 40000
"""

from __future__ import annotations

import argparse
from pathlib import Path

from ray.rllib.algorithms.ppo import PPOConfig
from ray.rllib.core.columns import Columns
from ray.rllib.core.rl_module.apis import ValueFunctionAPI
from ray.rllib.core.rl_module.rl_module import RLModuleSpec
from ray.rllib.core.rl_module.torch import TorchRLModule
from torch import nn

import kasmina_env


def mlp(num_inputs, num_outputs):
    """Two hidden layers."""
    return nn.Sequential(nn.Linear(num_inputs, 64), nn.Tanh(), nn.Linear(64, 64), nn.Tanh(), nn.Linear(64, num_outputs))


class MaskedActorCritic(TorchRLModule, ValueFunctionAPI):
    """Logits of actions and the value of an observation; logits of illegal actions are out of reach."""

    def setup(self):
        size = self.observation_space["observations"].shape[0]
        self.actor, self.critic = mlp(size, self.action_space.n), mlp(size, 1)

    def _forward(self, batch, **kwargs):
        seen = batch[Columns.OBS]
        logits = self.actor(seen["observations"])
        return {Columns.ACTION_DIST_INPUTS: logits.masked_fill(seen["action_mask"] == 0, -1e9)}

    def compute_values(self, batch, embeddings=None):
        return self.critic(batch[Columns.OBS]["observations"]).squeeze(1)


def configure(env_id, num_envs=64, seed=0, **settings):
    """The settings of RLlib: whole episodes of all rows, without a discount."""
    batch = kasmina_env.make_problem(env_id, **settings).horizon * num_envs
    return (
        PPOConfig()
        # The module in front of the colon is imported first.
        .environment(f"kasmina_env:{env_id}", env_config={"observation": "dict", **settings})
        # Not batch_mode="complete_episodes": with a seed, RLlib then begins every batch with the same episodes.
        .env_runners(
            num_env_runners=0,  # in this process
            num_envs_per_env_runner=num_envs,
            gym_env_vectorize_mode="vector_entry_point",
        )
        .rl_module(rl_module_spec=RLModuleSpec(module_class=MaskedActorCritic))
        .training(
            train_batch_size=batch,
            minibatch_size=min(480, batch),
            num_epochs=8,
            lr=1e-3,
            gamma=1.0,
            lambda_=0.95,
            clip_param=0.2,
            use_kl_loss=False,
            grad_clip=0.5,
        )
        .debugging(seed=seed, log_level="ERROR")
    )


def train(env_id, num_steps, num_envs=64, seed=0, **settings):
    """A trained algorithm, and the mean return of the latest training episodes."""
    algorithm = configure(env_id, num_envs, seed, **settings).build_algo()
    results = {"num_env_steps_sampled_lifetime": 0}
    while results["num_env_steps_sampled_lifetime"] < num_steps:
        results = algorithm.train()
    return algorithm, results["env_runners"]["episode_return_mean"]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("env_id", nargs="?", default="Kasmina/Spirals-v0")
    parser.add_argument("--steps", type=int, default=40_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("runs/agents_rllib_ppo"))
    arguments = parser.parse_args()
    algorithm, mean_return = train(arguments.env_id, arguments.steps, seed=arguments.seed)
    algorithm.save_to_path(arguments.out.absolute())
    algorithm.stop()
    print(f"mean return of the latest training episodes {mean_return:+.3f}; saved to {arguments.out}")
