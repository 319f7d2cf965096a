"""Cases, each in a process of its own, several times over; their medians side by side.

A case is a function that does the work and returns how much it did. What it needs is prepared before, by
another function in another process.
"""

from __future__ import annotations

import multiprocessing
import platform
import re
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

SPAWN = multiprocessing.get_context("spawn")  # a fork would begin with the memory of this process


@dataclass(frozen=True)
class Measure:
    """What a case took.

    :param done: what it returned.
    :param seconds: by the clock.
    :param cpu: seconds of all its threads.
    :param mib: the most memory that its process held, in MiB.
    """

    done: Any
    seconds: float
    cpu: float
    mib: float


def measured(case: Callable[..., Any], *arguments: Any) -> Measure:
    """Run a case in a process of its own."""
    receiving, sending = SPAWN.Pipe(duplex=False)
    process = SPAWN.Process(target=_run, args=(sending, case, arguments))
    process.start()
    sending.close()
    try:
        found: Measure = receiving.recv()
    except EOFError:
        raise SystemExit(f"{case.__name__} came to no end.") from None
    process.join()
    return found


def median(measures: list[Measure]) -> Measure:
    """Return the median of each figure; the work must have been the same."""
    (done,) = {measure.done for measure in measures}
    seconds, cpu, mib = (
        statistics.median(getattr(measure, name) for measure in measures)
        for name in ("seconds", "cpu", "mib")
    )
    return Measure(done, seconds, cpu, mib)


def side_by_side(runs: int, cases: dict[str, Callable[[], Measure]]) -> dict[str, Measure]:
    """Run cases in turns, so that what else the machine does meets all of them; return their medians."""
    found: dict[str, list[Measure]] = {name: [] for name in cases}
    for _ in range(runs):
        for name, case in cases.items():
            found[name].append(case())
    return {name: median(measures) for name, measures in found.items()}


def machine() -> str:
    """Name the machine: its processor, cores, memory and Python."""
    processor = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    memory = re.search(r"MemTotal:\s*(\d+)", Path("/proc/meminfo").read_text())
    return ", ".join(
        [
            platform.node(),
            processor[1] if processor else platform.machine(),
            f"{multiprocessing.cpu_count()} cores",
            f"{int(memory[1]) / 1024**2:.0f} GiB" if memory else "",
            f"Python {platform.python_version()}",
        ]
    )


def _run(sending: Any, case: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    started, cpu = time.perf_counter(), time.process_time()
    done = case(*arguments)
    seconds, cpu = time.perf_counter() - started, time.process_time() - cpu
    # Of this process alone: what getrusage() says begins with the parent's.
    peak = re.search(r"VmHWM:\s*(\d+)", Path("/proc/self/status").read_text())
    sending.send(Measure(done, seconds, cpu, int(peak[1]) / 1024 if peak else 0.0))
