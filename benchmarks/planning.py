"""Match a segment; plan what has changed since yesterday; a night without a change: beside plain Python sets.

One in a hundred people left, and as many came. ``--members`` may be given several times.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from measuring import Measure, machine, measured, side_by_side
from nights import TODAY, YESTERDAY, cohort_ledger, commit, night, request_for, write_match

if TYPE_CHECKING:
    from airflow_provider_heapbraze.membership.matching import MatchResult

CHANGED = 100
DAYS = (YESTERDAY, TODAY)


def matched(folder: Path) -> MatchResult:
    from airflow_provider_heapbraze.members import FileMembers
    from airflow_provider_heapbraze.membership.identity import IdentityMapping
    from airflow_provider_heapbraze.membership.matching import match

    mapping = IdentityMapping(external_id="identity", alias_name="email", alias_label="email")
    return match(FileMembers((folder / "members.parquet").as_uri()), mapping, Local(), folder / "ledger")


def match_ours(folder: Path) -> int:
    return matched(folder).counts["matched"]


class Local:
    """Files of this machine."""

    def path(self, uri: str) -> Path:
        return Path(uri.removeprefix("file://"))


def match_plain(folder: Path) -> int:
    """What an engineer writes in an afternoon: the same rule, without the reasons."""
    import pyarrow.parquet as pq

    found = {}
    for batch in pq.ParquetFile(folder / "members.parquet").iter_batches(columns=["identity", "email"]):
        for identity, email in zip(*(column.to_pylist() for column in batch.columns), strict=True):
            external_id = identity.strip() if identity else ""
            if external_id and len(external_id.encode()) <= 987:
                found["external_id", external_id] = email
            elif email:
                found["alias", email.strip()] = None
    (folder / "matched.json").write_text("\n".join(f"{kind} {value}" for kind, value in found))
    return len(found)


def plan_ours(folder: Path) -> int:
    from airflow_provider_heapbraze.membership.planning import make_plan

    ledger, request = night(folder, TODAY)
    return make_plan(ledger, ledger.last(), request).rows


def _identifiers(folder: Path, day: str) -> Path:
    request = night(folder, day)[1]
    return request.match_folder / request.match.file_of("identifiers")


def plan_plain(folder: Path) -> int:
    """What an engineer writes in an afternoon."""
    import pyarrow.parquet as pq

    before, now = (
        set(pq.read_table(identifiers, columns=["value"])["value"].to_pylist())
        for identifiers in map(partial(_identifiers, folder), DAYS)
    )
    changes = [[person, True] for person in now - before] + [[person, False] for person in before - now]
    (folder / "changes.json").write_text(json.dumps(changes))
    return len(changes)


def unchanged_ours(folder: Path) -> int:
    """A night from its file to its report; a request would fail."""
    from airflow_provider_heapbraze.clients.transport import Statistics
    from airflow_provider_heapbraze.membership.guards import Guards
    from airflow_provider_heapbraze.membership.senders import CohortSender
    from airflow_provider_heapbraze.membership.sync import Sync

    root = folder / "ledger"
    request = request_for(matched(folder), root, TODAY, "external_id")
    sync = Sync(cohort_ledger(root), CohortSender(None, "cohort"), Statistics().as_dict, Local())
    return sync.run(request, Guards())["size"]


def unchanged_plain(folder: Path) -> int:
    """Read both nights, and compare."""
    before = set((folder / "matched.json").read_text().splitlines())
    match_plain(folder)
    now = set((folder / "matched.json").read_text().splitlines())
    return len(before & now)


def write_members(folder: Path, members: int) -> None:
    """Write a segment as a warehouse unloads it: in no order, each person once."""
    import duckdb

    with duckdb.connect() as database:
        database.execute(
            "COPY (SELECT 'customer-' || (n * 7919 % 1000000007) AS identity, "
            "'mail-' || n || '@example.com' AS email, NULL::VARCHAR AS device_id, true AS is_identified "
            f"FROM range({members}) t(n)) TO '{folder}/members.parquet' (FORMAT parquet)"
        )


def write_nights(folder: Path, members: int) -> None:
    """Write two matches, and make yesterday's what is held."""
    from airflow_provider_heapbraze.membership.planning import make_plan

    moved = members // CHANGED
    write_match(folder, YESTERDAY, range(members))
    write_match(folder, TODAY, range(moved, members + moved))
    ledger, request = night(folder, YESTERDAY)
    commit(ledger, make_plan(ledger, ledger.last(), request))


def write_unchanged(folder: Path, members: int) -> None:
    """Write a segment that is held already."""
    from airflow_provider_heapbraze.membership.planning import make_plan

    write_members(folder, members)
    match_plain(folder)
    root = folder / "ledger"
    ledger = cohort_ledger(root)
    commit(ledger, make_plan(ledger, None, request_for(matched(folder), root, YESTERDAY, "external_id")))


WORK = {
    "match": (write_members, match_ours, match_plain),
    "plan": (write_nights, plan_ours, plan_plain),
    "unchanged night": (write_unchanged, unchanged_ours, unchanged_plain),
}


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--members", type=int, action="append")
    options.add_argument("--work", choices=list(WORK), action="append", help="default: all")
    options.add_argument("--runs", type=int, default=3)
    options.add_argument("--plain-up-to", type=int, default=10_000_000)
    chosen = options.parse_args()
    print(f"{machine()}; median of {chosen.runs} runs\n")
    print(f"{'members':>13} {'work':<17}{'who':<14}{'seconds':>9}{'CPU s':>9}{'peak MiB':>10}")
    for members in chosen.members or [1_000_000, 10_000_000]:
        for work in chosen.work or WORK:
            write, ours, plain = WORK[work]
            with tempfile.TemporaryDirectory() as name:
                folder = Path(name)
                measured(write, folder, members)
                cases = {"this package": partial(measured, ours, folder)}
                if members <= chosen.plain_up_to:
                    cases["plain sets"] = partial(measured, plain, folder)
                show(members, work, side_by_side(chosen.runs, cases))


def show(members: int, work: str, found: dict[str, Measure]) -> None:
    assert len({measure.done for measure in found.values()}) == 1, "the same work"
    for who, measure in found.items():
        figures = f"{measure.seconds:>9.1f}{measure.cpu:>9.1f}{measure.mib:>10,.0f}"
        print(f"{members:>13,} {work:<17}{who:<14}{figures}", flush=True)


if __name__ == "__main__":
    main()
