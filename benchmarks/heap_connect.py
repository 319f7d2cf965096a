"""From Heap Connect's dumps to matched members, without a network: beside plain Python.

Both read the same dumps and answer the same two questions: which users there are, and who began to check out
in the last 30 days and did not buy. The plain way is made with care: it keeps what its question needs, and
nothing else. Each case runs in a process of its own; where others use the machine, too, its seconds of CPU
count.
"""

from __future__ import annotations

import argparse
import json
import platform
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import dumps
from dumps import DAY_MS, NOW_MS, Size

SINCE_MS = NOW_MS - 30 * DAY_MS
SINCE = "TIMESTAMP '2025-10-26 00:00:00'"
QUESTIONS = {
    "everyone": "SELECT identity FROM users",
    "checkout": f"""
        SELECT identity FROM users
        WHERE user_id IN (SELECT user_id FROM checkout_begin WHERE time >= {SINCE})
        AND user_id NOT IN (SELECT user_id FROM purchase WHERE time >= {SINCE})
    """,
}


class LocalAccess:
    def __init__(self, ledger: Path) -> None:
        self.ledger = ledger

    def path(self, uri: str) -> Path:
        return Path(uri)

    def query(self, conn_id: str, sql: str):
        raise NotImplementedError


def ours(root: Path, ledger: Path, question: str) -> tuple[int, int]:
    from airflow_provider_heapbraze.members import HeapConnectMembers, IdentityMapping
    from airflow_provider_heapbraze.membership.matching import match

    members = HeapConnectMembers(str(root), QUESTIONS[question])
    counts = match(members, IdentityMapping(), LocalAccess(ledger), ledger).counts
    return counts["members"], counts["matched"]


def plain(root: Path, ledger: Path, question: str) -> tuple[int, int]:
    """What an engineer writes in a day."""
    moved = {row["from_user_id"]: row["to_user_id"] for row in rows(root, "user_migrations")}
    users = newest_users(root)
    merged = {}
    for user, (_, identity) in users.items():
        last = moved.get(user, user)
        # The greatest of a merged user's values, as Heap's documents have it.
        if identity is not None and (merged.get(last) or "") < identity:
            merged[last] = identity
        else:
            merged.setdefault(last, None)
    del users
    if question == "checkout":
        began = recent(root, "checkout_begin", moved)
        wanted = began - recent(root, "purchase", moved)
        merged = {user: merged[user] for user in wanted if user in merged}
    found = {identity for identity in merged.values() if identity is not None}
    with (ledger / "members.txt").open("w") as file:
        file.writelines(f"{identity}\n" for identity in found)
    return len(merged), len(found)


def newest_users(root: Path) -> dict[int, tuple[int, str | None]]:
    users = {}
    for row in rows(root, "users"):
        before = users.get(row["user_id"])
        if before is None or before[0] <= row["last_modified"]:
            users[row["user_id"]] = (row["last_modified"], row["identity"])
    return users


def recent(root: Path, table: str, moved: dict[int, int]) -> set[int]:
    return {moved.get(row["user_id"], row["user_id"]) for row in rows(root, table) if row["time"] >= SINCE_MS}


def rows(root: Path, table: str):
    """The rows of a table's newest full dump and of the dumps after it."""
    import fastavro

    manifests = sorted(root.glob("manifests/*.json"), key=lambda path: int(path.stem.removeprefix("sync_")))
    files = []
    for manifest in manifests:
        for found in json.loads(manifest.read_text())["tables"]:
            if found["name"] == table:
                files = files + found["files"] if found["incremental"] else found["files"]
    for name in files:
        with (root / name[name.index("sync_") :]).open("rb") as file:
            yield from fastavro.reader(file)


CASES = {"ours": ours, "plain": plain}


def run_case(who: str, question: str, root: Path) -> None:
    with tempfile.TemporaryDirectory() as ledger:
        started = time.perf_counter()
        members, matched = CASES[who](root, Path(ledger), question)
        seconds = time.perf_counter() - started
    usage = resource.getrusage(resource.RUSAGE_SELF)
    found = {
        "members": members,
        "matched": matched,
        "seconds": seconds,
        "cpu": usage.ru_utime + usage.ru_stime,
        "mib": usage.ru_maxrss / 1024,
    }
    print(json.dumps(found))


def measured(who: str, question: str, root: Path) -> dict[str, float]:
    command = [sys.executable, __file__, "--case", who, "--question", question, "--folder", str(root)]
    return json.loads(subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout)


def main() -> None:
    options = argparse.ArgumentParser()
    options.add_argument("--users", type=int, default=200_000)
    options.add_argument("--migrations", type=int, default=20_000)
    options.add_argument("--parts", type=int, default=4)
    options.add_argument("--incrementals", type=int, default=3)
    options.add_argument("--events", type=int, default=20_000, help="checkouts in each dump")
    options.add_argument("--folder", type=Path, help="where the dumps are kept for the next time")
    options.add_argument("--case", choices=[*CASES])
    options.add_argument("--question", choices=[*QUESTIONS])
    chosen = options.parse_args()
    if chosen.case:
        run_case(chosen.case, chosen.question, chosen.folder)
        return
    size = Size(chosen.users, chosen.migrations, chosen.parts, chosen.incrementals, chosen.events)
    with tempfile.TemporaryDirectory() as passing:
        compare(dumps.make_dumps(chosen.folder or Path(passing), size), size)


def compare(root: Path, size: Size) -> None:
    mib = sum(file.stat().st_size for file in root.rglob("*.avro")) / 2**20
    print(f"{platform.machine()}, Python {platform.python_version()}")
    print(f"{size.users:,} users in {size.parts} files, {size.migrations:,} of them merged; ", end="")
    print(f"{size.incrementals} incremental dumps; {mib:,.0f} MiB\n")
    print(
        f"{'question':<10}{'who':<14}{'members':>12}{'matched':>12}{'seconds':>9}{'CPU':>7}{'peak MiB':>10}",
        flush=True,
    )
    for question in QUESTIONS:
        answers = set()
        for who in CASES:
            found = measured(who, question, root)
            answers.add((found["members"], found["matched"]))
            name = "this package" if who == "ours" else "plain Python"
            print(f"{question:<10}{name:<14}{found['members']:>12,}{found['matched']:>12,}", end="")
            print(f"{found['seconds']:>9.1f}{found['cpu']:>7.1f}{found['mib']:>10,.0f}", flush=True)
        assert len(answers) == 1, "both find the same members"


if __name__ == "__main__":
    main()
