"""From a segment's export to what has changed since yesterday, without a network: beside plain Python sets.

Each case runs in a process of its own, on two cores; the table shows the median of several runs. Both read
the same archive, know the same people of yesterday, and write the changes down.
"""

from __future__ import annotations

import argparse
import json
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
import zipfile
from pathlib import Path

USERS_PER_FILE = 5_000
CHANGED = 10  # one in so many left, and as many came
YESTERDAY, TODAY = "2026-11-24", "2026-11-25"


def ours(folder: Path, day: str) -> int:
    from airflow_provider_heapbraze.membership.entries import Target
    from airflow_provider_heapbraze.membership.identity import HeapIdentity
    from airflow_provider_heapbraze.membership.ledger import TargetLedger
    from airflow_provider_heapbraze.membership.matching import match, match_folder
    from airflow_provider_heapbraze.membership.planning import Request, make_plan
    from airflow_provider_heapbraze.segments.exported import ExportedMembers

    def archives(_):
        yield folder / f"{day}.zip", "The archive"

    root = folder / "ledger"
    found = match(ExportedMembers(archives), HeapIdentity(), None, root)
    ledger = TargetLedger(root, Target("property", {"heap": "benchmark", "property": "in_segment"}))
    request = Request(
        run_id=day,
        match=found,
        match_folder=match_folder(root, found.fingerprint),
        kinds=("identity",),
        name=None,
        force_full=False,
        as_of=day,
    )
    plan = make_plan(ledger, ledger.last(), request)
    if day == YESTERDAY:
        commit(ledger, plan)
    return plan.rows


def commit(ledger, plan) -> None:
    """Make yesterday's plan what is held, as if all of it had been accepted."""
    from airflow_provider_heapbraze.membership.entries import Commit, Settled
    from airflow_provider_heapbraze.membership.holding import write_snapshot

    ledger.append(plan)
    snapshot, size = write_snapshot(ledger, plan, Settled(acknowledged=[(0, plan.rows)]))
    ledger.append(
        Commit(
            number=2,
            plan_id=plan.plan_id,
            run_id=plan.run_id,
            fingerprint=plan.fingerprint,
            snapshot=snapshot,
            size=size,
            forced=False,
            name=None,
            report="",
            as_of=plan.as_of,
        )
    )


def plain(folder: Path, day: str) -> int:
    """What an engineer writes in an afternoon."""
    held = folder / "held.json"
    now = set()
    with zipfile.ZipFile(folder / f"{day}.zip") as archive:
        for name in archive.namelist():
            with archive.open(name) as file:
                now.update(json.loads(line)["external_id"] for line in file)
    before = set(json.loads(held.read_text())) if held.exists() else set()
    changes = [[person, True] for person in now - before] + [[person, False] for person in before - now]
    (folder / "changes.json").write_text(json.dumps(changes))
    held.write_text(json.dumps(sorted(now)))
    return len(changes)


def write_archives(folder: Path, users: int) -> None:
    moved = users // CHANGED
    for day, first in ((YESTERDAY, 0), (TODAY, moved)):
        with zipfile.ZipFile(folder / f"{day}.zip", "w", zipfile.ZIP_DEFLATED) as archive:
            for start in range(first, first + users, USERS_PER_FILE):
                end = min(start + USERS_PER_FILE, first + users)
                lines = (f'{{"external_id":"customer-{n * 7919:012}"}}\n' for n in range(start, end))
                archive.writestr(f"{start:012}.txt", "".join(lines))


def measured(who: str, folder: Path, day: str) -> dict[str, float]:
    command = [sys.executable, __file__, "--case", who, "--folder", str(folder), "--day", day]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


def run_case(who: str, folder: Path, day: str) -> None:
    started = time.perf_counter()
    changes = {"ours": ours, "plain": plain}[who](folder, day)
    usage = resource.getrusage(resource.RUSAGE_SELF)
    print(
        json.dumps(
            {"changes": changes, "seconds": time.perf_counter() - started, "mib": usage.ru_maxrss / 1024}
        )
    )


def main() -> None:
    options = argparse.ArgumentParser()
    options.add_argument("--users", type=int, default=1_000_000)
    options.add_argument("--runs", type=int, default=3)
    options.add_argument("--case")
    options.add_argument("--folder", type=Path)
    options.add_argument("--day")
    chosen = options.parse_args()
    if chosen.case:
        run_case(chosen.case, chosen.folder, chosen.day)
        return
    print(f"{platform.machine()}, Python {platform.python_version()}")
    moved = chosen.users // CHANGED
    print(f"{chosen.users:,} users, {moved:,} left and {moved:,} came; median of {chosen.runs} runs\n")
    print(f"{'who':<14}{'seconds':>9}{'peak MiB':>10}")
    results = {"ours": [], "plain": []}
    for _ in range(chosen.runs):
        for who, found in results.items():
            with tempfile.TemporaryDirectory() as folder:
                write_archives(Path(folder), chosen.users)
                measured(who, Path(folder), YESTERDAY)
                found.append(measured(who, Path(folder), TODAY))
    for who, found in results.items():
        assert {result["changes"] for result in found} == {2 * moved}
        seconds, mib = (statistics.median(result[name] for result in found) for name in ("seconds", "mib"))
        print(f"{'this package' if who == 'ours' else 'plain sets':<14}{seconds:>9.1f}{mib:>10,.0f}")


if __name__ == "__main__":
    main()
