"""What the other side holds, as far as the ledger knows: S', U and what a plan's outcome makes of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from airflow_provider_heapbraze import storage
from airflow_provider_heapbraze.membership.carried import load_carried
from airflow_provider_heapbraze.membership.entries import Commit
from airflow_provider_heapbraze.membership.tables import digest, workspace

if TYPE_CHECKING:
    from airflow_provider_heapbraze.membership.entries import Entry, Plan, Settled
    from airflow_provider_heapbraze.membership.ledger import TargetLedger
    from airflow_provider_heapbraze.membership.tables import Workspace

KEY = "kind, value, label"
ON_KEY = "(a.kind = b.kind AND a.value = b.value AND a.label = b.label)"
# Where a removal has no answer, nobody knows whether the person is still held.
SURELY_HELD = (
    f"(EXISTS (SELECT 1 FROM held b WHERE {ON_KEY}) "
    f"AND NOT EXISTS (SELECT 1 FROM unanswered b WHERE b.remove AND {ON_KEY}))"
)
NOBODY = "SELECT ''::VARCHAR AS kind, ''::VARCHAR AS value, ''::VARCHAR AS label WHERE false"


def load_held(space: Workspace, ledger: TargetLedger, last: Entry | None) -> int:
    """Make ``held`` (S'), ``unanswered`` (U) and ``may_be_held`` (both).

    ``unanswered`` has the direction of each change, and whether it only repeats an earlier removal.

    :returns: how many surely are held.

    :raises LedgerDamagedError: a file of the ledger does not hold what the log says.
    """
    if last is None or isinstance(last, Commit):
        size = load_snapshot(space, ledger, last.snapshot if last else None, last.size if last else 0, "held")
        space.sql(f"CREATE TABLE unanswered AS SELECT *, false AS remove, false AS again FROM ({NOBODY})")
    else:
        settled = ledger.settled(last.plan_id)
        size = _load_held_after(space, ledger, last, settled)
        space.sql(
            f"CREATE TABLE unanswered AS SELECT {KEY}, remove, {_is_repeated(last)} AS again FROM planned "
            "WHERE file_row_number NOT IN (SELECT row FROM refused) "
            "AND file_row_number NOT IN (SELECT file_row_number FROM acknowledged)"
        )
    _load_unsure(space, ledger, last)
    # Joined with the few, not with all: an open plan mostly leaves few rows, or none.
    space.sql(f"CREATE TABLE held_anew AS SELECT {KEY} FROM held SEMI JOIN unanswered USING ({KEY})")
    beside = f"unanswered a WHERE NOT again AND NOT EXISTS (SELECT 1 FROM held_anew b WHERE {ON_KEY})"
    make_may_be_held(space, beside)
    return size


def make_may_be_held(space: Workspace, beside: str) -> None:
    """Make the views ``may_be_held``, and ``perhaps_held`` of those among them who surely are not.

    :param beside: SQL that names the latter.
    """
    space.sql(f"CREATE VIEW perhaps_held AS SELECT {KEY} FROM {beside}")
    space.sql(f"CREATE VIEW may_be_held AS SELECT {KEY} FROM held UNION ALL SELECT {KEY} FROM perhaps_held")


def _load_unsure(space: Workspace, ledger: TargetLedger, last: Entry | None) -> None:
    """Put those into ``unanswered`` of whom a change had no answer first, and was refused when sent again.

    A refused addition did not make them held, and a refused removal left them held; nobody knows whether they
    are.
    """
    load_carried(space, ledger, last, "unsure", f"SELECT *, false AS remove FROM ({NOBODY})")
    space.sql(
        f"INSERT INTO unanswered SELECT {KEY}, remove, false FROM unsure_before a "
        f"WHERE remove = EXISTS (SELECT 1 FROM held b WHERE {ON_KEY}) "
        f"AND NOT EXISTS (SELECT 1 FROM unanswered b WHERE {ON_KEY})"
    )


def make_unsure(space: Workspace) -> None:
    """Make the table ``unsure``, for the next plan: changes of whom an earlier change had no answer."""
    space.sql(
        f"CREATE TABLE unsure AS SELECT {KEY}, remove FROM change a "
        f"WHERE NOT again AND EXISTS (SELECT 1 FROM unanswered b WHERE {ON_KEY})"
    )


def load_snapshot(space: Workspace, ledger: TargetLedger, snapshot: str | None, size: int, view: str) -> int:
    """Make a view of a snapshot: kind, value and label of everybody held; return how many they are.

    :raises LedgerDamagedError: the file does not hold what the log says.
    """
    if snapshot is None:
        space.sql(f"CREATE VIEW {view} AS {NOBODY}")
        return 0
    if not space.load(view, ledger.path(snapshot), rows=size):
        raise ledger.not_as_logged(snapshot)
    return size


def load_changes(space: Workspace, ledger: TargetLedger, plan: Plan) -> None:
    """Make the view ``planned``: a plan's change set.

    :raises LedgerDamagedError: the file does not hold what the log says.
    """
    if not space.load("planned", ledger.path(plan.changes), rows=plan.rows, expected=plan.digest):
        raise ledger.not_as_logged(plan.changes)


def check_files(ledger: TargetLedger, plan: Plan) -> None:
    """Make sure that what a plan needs is there, before more of it is sent.

    :raises LedgerDamagedError: a file of the ledger does not hold what the log says.
    """
    with workspace() as space:
        load_snapshot(space, ledger, plan.base, plan.held, "base")
        load_changes(space, ledger, plan)
    ledger.settled(plan.plan_id)


def write_held(space: Workspace, ledger: TargetLedger, beginning: str) -> str:
    """Write ``held`` down as a snapshot.

    :param beginning: of its name, which ends with the digest of what is in it.
    :returns: the name.
    """
    local = space.folder / "held.parquet"
    space.write(f"SELECT {KEY} FROM held", local)
    name = f"{beginning}-{digest(local)}.parquet"
    storage.write_whole(ledger.path(name), local)
    return name


def write_snapshot(ledger: TargetLedger, plan: Plan, settled: Settled) -> tuple[str | None, int]:
    """Write down what is held once a plan is done.

    :returns: the snapshot's name, None where nobody is held; and its size.
    :raises LedgerDamagedError: a file of the ledger does not hold what the log says.
    """
    if not settled.acknowledged and not settled.rejected:
        return plan.base, plan.held
    with workspace() as space:
        size = _load_held_after(space, ledger, plan, settled)
        name = write_held(space, ledger, f"snapshots/{plan.plan_id}") if size else None
    return name, size


def write_rejected(ledger: TargetLedger, plan: Plan, settled: Settled) -> str | None:
    """Keep the rejected rows of a plan aside, with their reasons.

    :returns: the file's name, or None where no row was rejected.
    """
    if not settled.rejected:
        return None
    name = f"{plan.folder}/rejected.parquet"
    with workspace() as space:
        load_changes(space, ledger, plan)
        _load_refused(space, settled)
        rejected = space.folder / "rejected.parquet"
        space.write(
            f"SELECT {KEY}, remove, reason FROM planned JOIN refused ON file_row_number = row",
            rejected,
        )
        storage.write_whole(ledger.path(name), rejected)
    return name


def _load_refused(space: Workspace, settled: Settled) -> None:
    space.rows(
        "refused",
        "row BIGINT, reason VARCHAR",
        {"row": list(settled.rejected), "reason": list(settled.rejected.values())},
    )


def _is_repeated(plan: Plan) -> str:
    """Return SQL that tells whether a row of ``planned`` repeats a removal that was made before."""
    return f"(remove AND file_row_number >= {plan.first_removes})"


def _load_held_after(space: Workspace, ledger: TargetLedger, plan: Plan, settled: Settled) -> int:
    """Make the table ``held``: the plan's base with its acknowledged changes; ``acknowledged``; ``refused``.

    Whose removal was refused is held as before, and somebody whose addition never had an answer may be.
    """
    load_snapshot(space, ledger, plan.base, plan.held, "base")
    load_changes(space, ledger, plan)
    _load_refused(space, settled)
    space.rows(
        "answered",
        "start BIGINT, stop BIGINT",
        {"start": [s for s, _ in settled.acknowledged], "stop": [e for _, e in settled.acknowledged]},
    )
    space.sql(
        "CREATE TABLE acknowledged AS SELECT planned.* FROM planned ASOF JOIN answered "
        "ON planned.file_row_number >= answered.start WHERE planned.file_row_number < answered.stop"
    )
    stay = (
        f"SELECT {KEY} FROM planned JOIN refused ON file_row_number = row "
        f"WHERE remove AND NOT {_is_repeated(plan)}"
    )
    space.sql(
        f"CREATE TABLE held AS SELECT {KEY} FROM base a "
        f"WHERE NOT EXISTS (SELECT 1 FROM acknowledged b WHERE b.remove AND {ON_KEY}) "
        f"UNION ALL SELECT {KEY} FROM (SELECT {KEY} FROM acknowledged WHERE NOT remove UNION ALL {stay}) a "
        f"WHERE NOT EXISTS (SELECT 1 FROM base b WHERE {ON_KEY})"
    )
    return space.count("held")
