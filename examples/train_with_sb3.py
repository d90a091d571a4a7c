"""Plain stable-baselines3: MaskablePPO on the native vector environment, one wide network for all rows."""

from sb3_contrib import MaskablePPO
from stable_baselines3.common.vec_env import VecMonitor

from kasmina_env import KasminaVecEnv


def main(num_envs: int = 32, total_timesteps: int = 20_000) -> None:
    venv = VecMonitor(KasminaVecEnv("Kasmina/Spirals-v0", num_envs))
    horizon = 24  # episodes are finite: a rollout is one episode of every row, and nothing is discounted
    model = MaskablePPO("MlpPolicy", venv, n_steps=horizon, batch_size=num_envs * horizon // 4, gamma=1.0, device="cpu")
    model.learn(total_timesteps)
    returns = [episode["r"] for episode in model.ep_info_buffer]
    print(f"mean return of the last {len(returns)} episodes: {sum(returns) / len(returns):.3f}")


if __name__ == "__main__":
    main()
