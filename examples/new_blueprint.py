"""A blueprint of your own, used in an environment at once."""

import gymnasium as gym

from kasmina_env import register_blueprint


@register_blueprint("local", topologies=("image",), initial={"1.weight": 0.3})
def local(nn, channels):
    """3x3 convolution per channel, a norm that starts small, and a 1x1."""
    conv = nn.Conv2d(channels, channels, 3, padding=1, groups=channels, bias=False)
    return nn.Sequential(conv, nn.GroupNorm(1, channels), nn.Conv2d(channels, channels, 1))


def main(horizon: int = 15) -> None:
    env = gym.make("Kasmina/Digits-v0", blueprints=("local", "norm"), render_mode="ansi", horizon=horizon).unwrapped
    env.reset(seed=0)
    plan = {0: "GERMINATE block0 local ADD tempo2", 2: "ADVANCE block0", 5: "FOSSILIZE block0"}
    for step in range(horizon):
        action = env.action_names.index(plan.get(step, "WAIT"))
        _, _, _, _, info = env.step(action)
    print(env.render())
    print(f"committed score {info['committed_score']:.3f}, accuracy on test {info['test_accuracy']:.3f}")
    print(env.network(committed=True))


if __name__ == "__main__":
    main()
