"""The two engines beside each other: CPU time of a step of networks with a live seed in every slot."""

import sys
import time

import numpy as np
import torch

from kasmina_env.episode.data import load_data
from kasmina_env.episode.problem import make_problem
from kasmina_env.population import Conditions, Optimizer, Population
from kasmina_env.settings.config import Operator
from kasmina_env.settings.machine import keep_freed_memory


def main(preset: str = "Kasmina/Digits-v0", sizes: tuple[int, ...] = (1, 8, 64), repeats: int = 5) -> None:
    problem = make_problem(preset)
    data = load_data(problem, torch.device("cpu"), torch.float32)
    for size in sizes:
        found = {engine: milliseconds(problem, data, size, engine, repeats) for engine in ("torch", "fused")}
        (train, evaluate), (fused_train, fused_evaluate) = found["torch"], found["fused"]
        whole = (train + evaluate) / (fused_train + fused_evaluate)
        print(f"{preset}, {size} networks, ms of CPU time: training {train:.1f} → {fused_train:.1f}", end=", ")
        print(f"evaluation {evaluate:.1f} → {fused_evaluate:.1f}; {whole:.1f} times less")


def milliseconds(problem, data, size: int, engine: str, repeats: int):
    (population, alpha), config = lively(problem, data, size, engine), problem.config
    each_off = np.zeros((1 + problem.num_slots, *alpha.shape), dtype=bool)
    for slot in range(problem.num_slots):
        each_off[1 + slot, :, slot] = True
    times = []
    for _ in range(repeats + 1):  # the first warms up
        x, y = population.draw_minibatches(data.splits["train"], config.batches_per_step, config.batch_size)
        times.append([time.process_time()])
        population.train(x, y, alpha)
        times[-1].append(time.process_time())
        population.evaluate_together((data.watched, data.scored), alpha, (each_off, None))
        times[-1].append(time.process_time())
    return 1e3 * np.median(np.diff(times[1:], axis=1), axis=0)


def lively(problem, data, size: int, engine: str):
    conditions = Conditions.plain(size, problem.config.learning_rate)
    conditions.variant[:] = problem.variant_of[np.arange(size) % len(problem.variant_of)]
    optimizer, rng = Optimizer(clip_norm=problem.config.clip_norm), np.random.default_rng(0)
    others = {"criterion": data.criterion, "variants": problem.variants, "conditions": conditions, "engine": engine}
    population = Population(problem.host, range(size), optimizer, **others)
    operators = [Operator[name] for name in problem.config.operators]
    for row, slot in np.ndindex(size, problem.num_slots):
        kind = rng.choice(problem.config.blueprints), operators[rng.integers(len(operators))]
        population.germinate([row], slot, *kind, in_training=False)
    return population, rng.uniform(0.2, 1.0, (size, problem.num_slots))


if __name__ == "__main__":
    keep_freed_memory()
    main(*sys.argv[1:2], *([tuple(map(int, sys.argv[2:]))] if sys.argv[2:] else []))
