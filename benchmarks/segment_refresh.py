"""From a segment's export to what has changed since yesterday, without a network: beside plain Python sets.

Both read the same archive, know the same people of yesterday, and write the changes down.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path

from measuring import Measure, machine, measured, side_by_side
from nights import TODAY, YESTERDAY, commit, request_for

USERS_PER_FILE = 5_000
CHANGED = 10  # one in so many left, and as many came


def ours(folder: Path, day: str) -> int:
    from airflow_provider_heapbraze.membership.entries import Target
    from airflow_provider_heapbraze.membership.identity import HeapIdentity
    from airflow_provider_heapbraze.membership.ledger import TargetLedger
    from airflow_provider_heapbraze.membership.matching import match
    from airflow_provider_heapbraze.membership.planning import make_plan
    from airflow_provider_heapbraze.segments.exported import ExportedMembers

    def archives(_):
        yield folder / f"{day}.zip", "The archive"

    root = folder / "ledger"
    found = match(ExportedMembers(archives), HeapIdentity(), None, root)
    ledger = TargetLedger(root, Target("property", {"heap": "benchmark", "property": "in_segment"}))
    plan = make_plan(ledger, ledger.last(), request_for(found, root, day, "identity"))
    if day == YESTERDAY:
        commit(ledger, plan)
    return plan.rows


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


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--users", type=int, default=1_000_000)
    options.add_argument("--runs", type=int, default=3)
    chosen = options.parse_args()

    def second_day(case: Callable[[Path, str], int]) -> Measure:
        with tempfile.TemporaryDirectory() as folder:
            write_archives(Path(folder), chosen.users)
            measured(case, Path(folder), YESTERDAY)
            return measured(case, Path(folder), TODAY)

    print(machine())
    moved = chosen.users // CHANGED
    print(f"{chosen.users:,} users, {moved:,} left and {moved:,} came; median of {chosen.runs} runs\n")
    print(f"{'who':<14}{'seconds':>9}{'CPU s':>9}{'peak MiB':>10}")
    cases = {"this package": lambda: second_day(ours), "plain sets": lambda: second_day(plain)}
    for who, measure in side_by_side(chosen.runs, cases).items():
        assert measure.done == 2 * moved
        print(f"{who:<14}{measure.seconds:>9.1f}{measure.cpu:>9.1f}{measure.mib:>10,.0f}")


if __name__ == "__main__":
    main()
