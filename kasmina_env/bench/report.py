"""What was measured, as tables, as JSON, and as a picture."""

from __future__ import annotations

import json
from collections.abc import Sequence
from itertools import cycle, product
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from kasmina_env.bench.growth import Cost
from kasmina_env.bench.measure import PARTS, Measured
from kasmina_env.lifecycle.arrays import FloatArray

COLOURS, STYLES = ("#000000", "#777777", "#0072B2", "#56B4E9"), ("--", ":", "-.")  # of rivals


class Table(NamedTuple):
    """Rows under a title."""

    title: str
    columns: tuple[str, ...]
    rows: Sequence[tuple[str, ...]]


def tables(measured: Measured, growth: Sequence[Cost] = ()) -> list[Table]:
    """Everything that was measured."""
    found = [_populations(measured), _parts(measured), _floor(measured)]
    if measured.rivals:
        found.insert(1, _rivals(measured))
    if growth:
        found.append(_growth(growth))
    return found


def _populations(measured: Measured) -> Table:
    rows = []
    for size, in_workers in _populations_of(measured):
        each = measured.per_network(size, in_workers)
        memory = None if in_workers else measured.memory.get(size)
        row = (f"{1 / each:.0f}", f"{measured.batches_per_step / each:.0f}", f"{1e3 * each:.2f}")
        seconds = (measured.in_workers if in_workers else measured.steps)[size]
        name = _name(measured, size, in_workers)
        rows.append((name, _spread(seconds), *row, f"{memory / 1e6:.0f}" if memory else ""))
    return Table(
        f"{measured.preset} on {measured.device}, {measured.engine} engine: a live seed in every slot, medians (range)",
        ("networks", "ms per step", "steps/s", "network-minibatches/s", "ms per network", "peak MB"),
        rows,
    )


def _populations_of(measured: Measured) -> list[tuple[int, bool]]:
    """Sizes, each as it is and, where that was measured, in workers."""
    return [
        (size, there) for size in measured.steps for there in (False, True) if not there or size in measured.in_workers
    ]


def _name(measured: Measured, size: int, in_workers: bool) -> str:
    return f"{size} in {measured.num_workers} workers" if in_workers else str(size)


def _rivals(measured: Measured) -> Table:
    beside = {_name(measured, *which): measured.per_network(*which) for which in _populations_of(measured)}
    rows = []
    for name, seconds in measured.rivals.items():
        each = float(np.median(seconds))
        rows.append((name, _spread(seconds), f"{1 / each:.1f}", *(f"{each / other:.1f}x" for other in beside.values())))
    title = "Beside them, in the same run: time of one network's step, and how much faster so many side by side are"
    return Table(title, ("what", "ms", "steps/s", *beside), rows)


def _parts(measured: Measured) -> Table:
    rows = []
    for size, parts in measured.parts.items():
        total = float(np.median(measured.steps[size]))
        rows.append((str(size), *(f"{100 * float(np.median(parts[part])) / total:.0f} %" for part in PARTS)))
    title = "Share of a step; rest: lifecycle, observation, reward, infos, and moving seeds"
    return Table(title, ("networks", *PARTS), rows)


def _floor(measured: Measured) -> Table:
    machine = measured.machine
    rows = []
    for size, work in measured.work.items():
        floors, seconds = (work.arithmetic(machine), work.traffic(machine)), float(np.median(measured.steps[size]))
        figures = (f"{work.flops / 1e9:.2f}", f"{work.num_bytes / 1e9:.2f}")
        rows.append((str(size), *figures, *(f"{1e3 * f:.1f} ({seconds / f:.1f}x)" for f in floors)))
    rates = f"{machine.flops_per_second / 1e9:.0f} GFLOP/s matmul, {machine.bytes_per_second / 1e9:.1f} GB/s copy"
    columns = ("networks", "GFLOP", "GB of operands", "arithmetic, ms", "operands, ms")
    title = f"Floors: all arithmetic at matmul rate; all operands of unfused kernels at copy bandwidth ({rates})"
    return Table(title, columns, rows)


def _growth(growth: Sequence[Cost]) -> Table:
    rows = [(cost.what, str(cost.value), f"{1e3 * cost.seconds:.1f}") for cost in growth]
    return Table("How the cost of a step grows, one thing at a time", ("with", "value", "ms per step"), rows)


def _spread(seconds: FloatArray) -> str:
    return f"{1e3 * np.median(seconds):.1f} ({1e3 * seconds.min():.1f} to {1e3 * seconds.max():.1f})"


def as_json(measured: Measured, growth: Sequence[Cost] = ()) -> str:
    """All repeats, in seconds and bytes."""
    document: dict[str, Any] = {
        "preset": measured.preset,
        "device": measured.device,
        "engine": measured.engine,
        "engine_reason": measured.engine_reason,
        "batches_per_step": measured.batches_per_step,
        "steps": {str(size): seconds.tolist() for size, seconds in measured.steps.items()},
        "parts": {
            str(size): {name: seconds.tolist() for name, seconds in parts.items()}
            for size, parts in measured.parts.items()
        },
        "rivals": {name: seconds.tolist() for name, seconds in measured.rivals.items()},
        "work": {str(size): vars(work) for size, work in measured.work.items()},
        "machine": vars(measured.machine),
        "memory": {str(size): memory for size, memory in measured.memory.items()},
        "workers": {
            "number": measured.num_workers,
            "steps": {str(size): seconds.tolist() for size, seconds in measured.in_workers.items()},
        },
        "growth": [vars(cost) for cost in growth],
    }
    return json.dumps(document, indent=1) + "\n"


def picture(measured: Sequence[Measured], path: Path) -> None:
    """Time per network against the number of networks, both on logarithmic axes, rivals as lines across."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, len(measured), figsize=(5 * len(measured), 4), layout="constrained", squeeze=False)
    for ax, one in zip(axes[0], measured, strict=True):
        sizes = sorted(one.steps)
        ax.plot(sizes, [1e3 * one.per_network(size) for size in sizes], "o-", color="#D55E00", label="population")
        if one.in_workers:
            spread = [1e3 * one.per_network(size, in_workers=True) for size in sorted(one.in_workers)]
            ax.plot(sorted(one.in_workers), spread, "s:", color="#D55E00", label=f"in {one.num_workers} workers")
        for (name, seconds), (style, colour) in zip(one.rivals.items(), cycle(product(STYLES, COLOURS)), strict=False):
            ax.axhline(1e3 * float(np.median(seconds)), color=colour, linestyle=style, label=name)
        ax.set(
            xscale="log",
            yscale="log",
            xlabel="networks",
            ylabel="ms per network and step",
            title=f"{one.preset}, {one.device}",
        )
        ax.legend(fontsize=8)
    figure.savefig(path, dpi=110)
    plt.close(figure)
