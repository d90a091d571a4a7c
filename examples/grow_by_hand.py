"""The body without reinforcement learning: train a host, grow a seed in it by hand, keep it, take the network home."""

import numpy as np

from kasmina_env import Population
from kasmina_env.networks.hosts import CNNHost
from kasmina_env.population import Optimizer
from kasmina_env.settings.config import Operator
from kasmina_env.tasks import TASKS


def main(steps: int = 40) -> None:
    data = TASKS.get("digits")().splits
    population = Population(CNNHost(), rng_seeds=[0], optimizer=Optimizer(learning_rate=0.02))  # more seeds, more rows
    alpha = np.zeros((1, population.num_slots))  # amplitudes [networks, slots]
    for step in range(steps):
        if step == 2:  # germinate: the seed learns behind the host, without changing what the network says
            population.germinate([0], slot=0, blueprint="conv_light", operator=Operator.ADD)
        if step == 4:  # blend: from here on it acts, more from step to step
            population.connect([0], slot=0)
        alpha[0, 0] = np.clip((step - 3) / 5, 0, 1)
        population.train(*population.draw_minibatches(data["train"], num_batches=4, batch_size=32), alpha)
    off = np.zeros((2, 1, population.num_slots), dtype=bool)
    off[1, 0, 0] = True  # two settings of the same network: as it is, and with the seed switched off
    _, accuracy = population.evaluate(data["test"], alpha, off)
    print(f"accuracy on test: {accuracy[0].item():.3f}, and {accuracy[1].item():.3f} without the seed")

    fossilized = alpha[0] == 1  # keep what has come to act in full; it goes on training with the host
    network = population.network(row=0, alpha=alpha[0], keep=fossilized)  # an ordinary torch.nn.Module
    print("taken home:", network(data["test"].x[:5]).argmax(dim=1).tolist(), "should be", data["test"].y[:5].tolist())


if __name__ == "__main__":
    main()
