"""An ordinary environment: plain stable-baselines3 with its own `make_vec_env`, nothing of this project but the id."""

from stable_baselines3 import PPO
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.evaluation import evaluate_policy

import kasmina_env  # noqa: F401  registers the environments


def main(num_envs: int = 4, total_timesteps: int = 4_000, episodes: int = 8) -> None:
    # every environment here trains one network; with agents/maskable_ppo.py all of them train as one wide network
    settings = {"action_space": "factored"}  # PPO knows no masks: a choice per head is easier to learn than a flat one
    venv = make_vec_env("Kasmina/Spirals-v0", n_envs=num_envs, seed=0, env_kwargs=settings)
    horizon = 24  # episodes are finite: a rollout is one episode of every environment, and nothing is discounted
    model = PPO("MlpPolicy", venv, n_steps=horizon, batch_size=num_envs * horizon // 4, gamma=1.0, device="cpu")
    before, _ = evaluate_policy(model, venv, n_eval_episodes=episodes)
    model.learn(total_timesteps)
    after, _ = evaluate_policy(model, venv, n_eval_episodes=episodes)
    print(f"mean return of {episodes} episodes: {before:.3f} before, {after:.3f} after {total_timesteps} steps")


if __name__ == "__main__":
    main()
