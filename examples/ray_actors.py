"""Networks in Ray actors: steps per second of several beside one and beside processes, and the bytes that travel."""

import sys
import time

import numpy as np
import ray

from kasmina_env.bench.workload import Lively, lively_population
from kasmina_env.episode.placement import dump


def main(preset: str = "Kasmina/Digits-v0", rows: int = 32, actors: int = 2, repeats: int = 9) -> None:
    if not ray.is_initialized():  # a cluster of this machine that believes to have enough cores
        ray.init("local", num_cpus=1 + actors, object_store_memory=2**27, include_dashboard=False, log_to_driver=False)
    crews = {
        "1 process": lively_population(preset, rows),
        "1 actor": lively_population(preset, rows, placement="ray"),
        f"{actors} processes": lively_population(preset, actors * rows, num_workers=actors),
        f"{actors} actors": lively_population(preset, actors * rows, num_workers=actors, placement="ray"),
    }
    starts = {name: env.snapshot() for name, env in crews.items()}
    found = {name: [] for name in crews}
    for _ in range(repeats):  # in turn; the fastest counts, for other work on the machine only ever adds
        for name, env in crews.items():
            found[name].append(seconds_of_step(env, starts[name]))
    fastest = {name: np.min(times, axis=0) for name, times in found.items()}  # on the clock, of this process's CPU
    for name, (step, here) in fastest.items():
        size = rows * int(name.split()[0])
        speed = f"{1e3 * step:.1f} ms per step, {1e3 * here:.1f} ms CPU time of this process, {size / step:.0f} steps/s"
        print(f"{preset}, {size} networks in {name}: {speed}")
    for kind, one in (("processes", "1 process"), ("actors", "1 actor")):
        ratio = fastest[one][0] / fastest[f"{actors} {kind}"][0]
        print(f"{actors} {kind} take {ratio:.2f} × {actors} as many steps per second as {one}")
    show_bytes(crews["1 actor"], rows)
    for env in crews.values():
        env.close()
    ray.shutdown()


def seconds_of_step(env, start) -> tuple[float, float]:
    env.restore(start)
    actions, begin, cpu = Lively(env.problem).act(env.action_masks()), time.perf_counter(), time.process_time()
    env.step(actions)
    return time.perf_counter() - begin, time.process_time() - cpu


def show_bytes(env, rows: int) -> None:
    call = dump(("step", (np.zeros(rows, dtype=np.int64), None)))
    answer, begin = dump((True, env.episodes.report)), time.perf_counter()
    saved = dump(env.snapshot().episodes.content)
    print(f"a snapshot of {rows} networks takes {1e3 * (time.perf_counter() - begin):.1f} ms")
    print(f"bytes per network: {len(call) / rows:.0f} to an actor and {len(answer) / rows:.0f} back in a step", end="")
    print(f", {len(saved) / rows:.0f} in a snapshot")


if __name__ == "__main__":
    main(*sys.argv[1:2], *map(int, sys.argv[2:5]))
