"""The body without reinforcement learning: train networks, grow a seed in them by hand, take one home."""

import numpy as np

from kasmina_env import Population
from kasmina_env.config import Operator
from kasmina_env.hosts import CNNHost
from kasmina_env.population import Optimizer
from kasmina_env.tasks import TASKS


def main(steps: int = 20) -> None:
    data = TASKS.get("digits")().splits
    population = Population(CNNHost(), rng_seeds=[0, 1, 2], optimizer=Optimizer(learning_rate=0.02))
    alpha = np.zeros((3, population.num_slots))  # amplitudes [networks, slots]
    for step in range(steps):
        if step == 2:  # a seed that learns behind the host, without changing what the network says
            population.germinate([0, 1], slot=0, blueprint="depthwise", operator=Operator.ADD)
        if step == 4:  # from here on it acts, more from step to step
            population.connect([0, 1], slot=0)
        alpha[[0, 1], 0] = np.clip((step - 3) / 5, 0, 1)
        population.train(*population.draw_minibatches(data["train"], num_batches=4, batch_size=32), alpha)
    _, accuracy = population.evaluate(data["test"], alpha)
    print("accuracy on test, two grown networks and one left alone:", accuracy[0].tolist())
    network = population.network(row=0, alpha=alpha[0])  # an ordinary torch.nn.Module
    print("taken home:", network(data["test"].x[:5]).argmax(dim=1).tolist(), "should be", data["test"].y[:5].tolist())


if __name__ == "__main__":
    main()
