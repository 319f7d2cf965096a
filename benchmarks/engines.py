"""A night of a cohort whose segment is in a warehouse: matched and planned there, and pulled to the worker.

Both match everybody, plan and commit; one in a hundred left, and as many came. Delivery is the same, and left
out. Seconds are by the clock, with the warehouse's work on the same machine; CPU and memory are the worker's
alone, with Airflow's hooks. Postgres is the system's, Spark a master, two workers and a Thrift server:

    PYTHONPATH=. python benchmarks/engines.py --warehouse postgres --members 1000000
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
from contextlib import contextmanager
from pathlib import Path

from benchmarks.measuring import machine, measured, side_by_side

CHANGED = 100
CONN_ID = "warehouse"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--warehouse", choices=("postgres", "spark"), default="postgres")
    parser.add_argument("--members", type=int, default=1_000_000)
    parser.add_argument("--runs", type=int, default=1)
    options = parser.parse_args()
    print(f"{machine()}; {options.warehouse}, median of {options.runs} runs\n")
    print(
        f"{'members':>12} {'the work is done':<22} {'seconds':>9} {'CPU s':>7} {'peak MiB':>9} {'changes':>9}"
    )
    with tempfile.TemporaryDirectory() as name, server(options.warehouse) as started:
        os.environ["AIRFLOW_HOME"] = name
        os.environ[f"AIRFLOW_CONN_{CONN_ID.upper()}"] = json.dumps(started.connection)
        write_segments(started, options.warehouse, options.members)
        places = {"in the warehouse": CONN_ID, "on the worker": ""}
        nights = dict.fromkeys(places, 0)

        def night(place: str):
            nights[place] += 1
            number = nights[place]
            return measured(one_night, Path(name) / place.replace(" ", "-"), places[place], number)

        for place in places:
            night(place)
        cases = {place: lambda place=place: night(place) for place in places}
        for place, found in side_by_side(options.runs, cases).items():
            figures = f"{found.seconds:>9.1f} {found.cpu:>7.1f} {found.mib:>9,.0f} {found.done:>9,}"
            print(f"{options.members:>12,} {place:<22} {figures}")


@contextmanager
def server(warehouse: str):
    """Start a warehouse."""
    if warehouse == "postgres":
        from tests.postgres_server import postgres_server

        with postgres_server(
            shared_buffers="2GB", work_mem="256MB", max_wal_size="8GB", log_statement="none"
        ) as it:
            yield it
    else:
        from tests.spark_server import spark_server

        with spark_server() as it:
            yield it


def write_segments(started, warehouse: str, members: int) -> None:
    """Write two segments, of even and of odd nights: in no order, each person once."""
    moved = members // CHANGED
    started.execute("CREATE SCHEMA segments")
    for name, first in (("even", 0), ("odd", moved)):
        if warehouse == "postgres":
            numbers, text = f"generate_series({first}, {first + members - 1}) AS t(n)", "text"
            made, known = f"CREATE TABLE segments.{name} AS", f"ANALYZE segments.{name}"
        else:
            numbers, text = f"(SELECT id AS n FROM range({first}, {first + members}))", "string"
            made = f"CREATE TABLE segments.{name} USING parquet AS"
            known = f"ANALYZE TABLE segments.{name} COMPUTE STATISTICS"
        number = "CAST(n AS bigint) * 7919 % 1000000007"
        started.execute(
            f"{made} SELECT concat('customer-', CAST({number} AS {text})) AS identity, "
            f"concat('mail-', CAST(n AS {text}), '@example.com') AS email FROM {numbers}"
        )
        started.execute(known)


def one_night(root: Path, engine: str, number: int) -> int:
    """Match, plan and commit; return how many changes there are."""
    from airflow_provider_heapbraze.membership.entries import Target
    from airflow_provider_heapbraze.membership.identity import IdentityMapping
    from airflow_provider_heapbraze.membership.ledger import TargetLedger
    from airflow_provider_heapbraze.membership.matching import match, match_folder
    from airflow_provider_heapbraze.membership.members import SqlMembers
    from airflow_provider_heapbraze.membership.planning import Request, make_plan
    from airflow_provider_heapbraze.membership.spaces import Spaces
    from airflow_provider_heapbraze.operators._access import AirflowAccess
    from benchmarks.nights import commit
    from tests.airflow.cohorts import context

    segment = "odd" if number % 2 else "even"
    access = AirflowAccess(root, context())
    members = SqlMembers(CONN_ID, f"SELECT identity, email FROM segments.{segment}")
    matched = match(members, IdentityMapping("identity", "email", "email"), access, root, engine)
    ledger = TargetLedger(root, Target("cohort", {"cohort_id": "one"}), Spaces(access, engine))
    request = Request(
        run_id=f"night-{number}",
        match=matched,
        match_folder=match_folder(root, matched.fingerprint),
        kinds=("external_id", "alias"),
        name="One",
        force_full=False,
        as_of=f"2026-11-{number:02}",
    )
    plan = make_plan(ledger, ledger.last(), request)
    commit(ledger, plan)
    return plan.rows


if __name__ == "__main__":
    main()
