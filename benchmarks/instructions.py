"""Instructions a row for match, plan and Currents: what else a machine does changes nothing in them.

Valgrind counts them, on one thread (``apt-get install valgrind``). Each case runs with few rows and with
many, and the difference is taken, so that the start of a process does not count. The figures are compared
with those that are committed beside this file; ``--write`` puts the present ones in their place.

Other versions of DuckDB, PyArrow or Python have other figures, and so may processors that have other
instructions. Where none are committed for this Python on such a processor, there is nothing to compare with.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import re
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

HERE = Path(__file__).resolve()
COMMITTED = HERE.with_suffix(".json")
TOLERANCE = 0.1
VALGRIND = ["valgrind", "--tool=cachegrind", "--cache-sim=no", "--cachegrind-out-file=/dev/null"]
COUNTED = re.compile(r"I\s+refs:\s+([\d,]+)")
# One thread, the same order of sets and dicts each time, and nothing that is chosen by the processor.
ONE_THREAD = {
    "ARROW_NUM_THREADS": "1",
    "ARROW_USER_SIMD_LEVEL": "SSE4_2",
    "OMP_NUM_THREADS": "1",
    "POLARS_MAX_THREADS": "1",
    "PYTHONHASHSEED": "0",
}


def match(folder: Path) -> int:
    from planning import match_ours

    return match_ours(folder)


def plan(folder: Path) -> int:
    from planning import plan_ours

    return plan_ours(folder)


def currents(folder: Path) -> int:
    from currents_throughput import ours

    return ours(folder / "events.avro")


def write_match(folder: Path, rows: int) -> None:
    from planning import write_members

    write_members(folder, rows)


def write_plan(folder: Path, rows: int) -> None:
    from planning import write_nights

    write_nights(folder, rows)


def write_currents(folder: Path, rows: int) -> None:
    from currents_throughput import write_inputs

    write_inputs(folder, rows)


CASES = {
    "match": (write_match, match, 20_000, 120_000),
    "plan": (write_plan, plan, 20_000, 120_000),
    "currents": (write_currents, currents, 2_000, 12_000),
}


def here() -> str:
    """Name what figures depend on: Python, and which instructions the processor has."""
    flags = re.search(r"^flags\s*: (.*)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    known = hashlib.sha256(" ".join(sorted(flags[1].split() if flags else [])).encode()).hexdigest()[:12]
    return f"Python {sys.version_info.major}.{sys.version_info.minor}, processor {known}"


def main() -> int:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--write", action="store_true", help="keep the figures, to be compared with")
    options.add_argument("--runs", type=int, default=1, help="say how far several runs differ")
    options.add_argument("--work", nargs=3, help=argparse.SUPPRESS)  # what to do, which case, and with what
    chosen = options.parse_args()
    if chosen.work:
        return work(*chosen.work)
    found = {name: [figure] for name, figure in measured().items()}
    for _ in range(chosen.runs - 1):
        for name, figure in measured().items():
            found[name].append(figure)
    now = {name: min(figures) for name, figures in found.items()}
    kept = json.loads(COMMITTED.read_text()) if COMMITTED.exists() else {}
    if chosen.write:
        kept[here()] = now
        COMMITTED.write_text(json.dumps(kept, indent=2) + "\n")
    committed = kept.get(here())
    if committed is None:
        print(f"Nothing is committed for {here()}. Now, a row: {now}")
        return 0
    print(f"{'instructions a row':<20}{'now':>10}{'committed':>12}{'change':>9}{'runs differ by':>16}")
    for name, figures in found.items():
        change, spread = now[name] / committed[name] - 1, max(figures) / now[name] - 1
        print(f"{name:<20}{now[name]:>10,}{committed[name]:>12,}{change:>9.1%}{spread:>16.2%}")
    if any(now[name] > committed[name] * (1 + TOLERANCE) for name in now):
        print(f"More than {TOLERANCE:.0%} beyond what is committed. Mend it; or commit --write, and say why.")
        return 1
    return 0


def measured() -> dict[str, int]:
    """Return instructions a row, by case."""
    with tempfile.TemporaryDirectory() as name, ThreadPoolExecutor(os.cpu_count()) as pool:
        jobs = {
            (case, rows): Path(name) / f"{case}-{rows}"
            for case, (_, _, *sizes) in CASES.items()
            for rows in sizes
        }
        counts = dict(zip(jobs, pool.map(count, jobs, jobs.values()), strict=True))
    return {
        case: round((counts[case, many] - counts[case, few]) / (many - few))
        for case, (_, _, few, many) in CASES.items()
    }


def count(job: tuple[str, int], folder: Path) -> int:
    """Return how many instructions a case takes, with the start of its process."""
    case, rows = job
    folder.mkdir()
    started([], "write", case, str(rows), folder)
    done = started(VALGRIND, "do", case, str(rows), folder)
    (counted,) = COUNTED.findall(done.stderr)
    return int(counted.replace(",", ""))


def started(before: list[str], *work: object) -> subprocess.CompletedProcess[str]:
    what, case, rows, folder = map(str, work)
    command = [*before, sys.executable, str(HERE), "--work", what, case, rows]
    project = str(HERE.parents[1])
    environment = {**os.environ, **ONE_THREAD, "PYTHONPATH": project}
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=True)


def work(what: str, case: str, rows: str) -> int:
    """Do a part, in a process of its own whose working folder holds all that it needs."""
    write, do, *_ = CASES[case]
    if what == "write":
        write(Path.cwd(), int(rows))
        return 0
    from airflow_provider_heapbraze.membership import tables

    tables.SETTINGS["threads"] = "1"
    assert do(Path.cwd())
    return 0


if __name__ == "__main__":
    sys.exit(main())
