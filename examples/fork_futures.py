"""Fork one training run into futures that differ in a single decision: which blueprint grows in the first block."""

import gymnasium as gym
from gymnasium.vector import AutoresetMode

import kasmina_env  # noqa: F401  registers the environments

BLUEPRINTS = ("norm", "attention", "pointwise", "depthwise", "conv_light")


def main(horizon: int = 15, fork_at: int = 3) -> None:
    futures = ("WAIT", *(f"GERMINATE block0 {name} ADD tempo2" for name in BLUEPRINTS))
    env = gym.make_vec(
        "Kasmina/Digits-v0", num_envs=len(futures), horizon=horizon, autoreset_mode=AutoresetMode.DISABLED
    )
    env.reset(seed=0)
    later = {fork_at + 2: "ADVANCE block0", fork_at + 5: "FOSSILIZE block0"}
    for step in range(horizon):
        if step == fork_at:  # every row becomes a copy of row 0: the same weights, and the same minibatches to come
            env.copy_rows([0] * (len(futures) - 1), range(1, len(futures)))
        names = futures if step == fork_at else [later.get(step, "WAIT")] * len(futures)
        _, _, _, _, infos = env.step([env.action_names.index(name) for name in names])  # not legal: counts as WAIT
    for name, score, accuracy in zip(futures, infos["committed_score"], infos["test_accuracy"], strict=True):
        print(f"{name:38} committed score {score:.3f}, accuracy on test {accuracy:.3f}")
    env.close()


if __name__ == "__main__":
    main()
