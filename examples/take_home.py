"""Grow a network, save it, and use it as plain PyTorch: predict, train on, export, with no environment in sight."""

import tempfile
from pathlib import Path

import gymnasium as gym
import torch
import torch.nn.functional as F

from kasmina_env import load_network, save_network
from kasmina_env.tasks import TASKS


def grow(horizon: int):
    """One episode by a fixed plan; the committed network, and what the environment says of it."""
    env = gym.make("Kasmina/Digits-v0", horizon=horizon).unwrapped
    env.reset(seed=0)
    plan = {0: "GERMINATE block0 conv_light ADD tempo2", 2: "ADVANCE block0", 6: "FOSSILIZE block0"}
    for step in range(horizon):
        _, _, _, _, info = env.step(env.action_names.index(plan.get(step, "WAIT")))
    return env.network(committed=True), info


def accuracy(network: torch.nn.Module, data) -> float:
    with torch.no_grad():
        return (network(data.x).argmax(dim=1) == data.y).double().mean().item()


def main(horizon: int = 15, epochs: int = 5) -> None:
    data = TASKS.get("digits")().splits
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "net.safetensors"
        grown, info = grow(horizon)
        save_network(grown, path, metadata={"test_accuracy": info["test_accuracy"]})
        network = load_network(path)  # from here on: an ordinary torch.nn.Module
        print(
            f"on test: {info['test_accuracy']:.3f} said the environment, {accuracy(network, data['test']):.3f} the file"
        )

        optimizer = torch.optim.Adam(network.parameters(), lr=3e-3)
        for _ in range(epochs):
            for x, y in zip(data["train"].x.split(64), data["train"].y.split(64), strict=True):
                optimizer.zero_grad()
                F.cross_entropy(network(x), y).backward()
                optimizer.step()
        print(f"after {epochs} more epochs: {accuracy(network, data['test']):.3f}")

        program = path.with_name("program.pt2")
        save_network(network, program, example=data["test"].x[:2])
        module = torch.export.load(program).module()  # needs PyTorch alone
        print(f"as a program: {accuracy(module, data['test']):.3f}")


if __name__ == "__main__":
    main()
