"""What the other side holds, as far as the ledger knows: S', U and what a plan's outcome makes of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from airflow_provider_heapbraze import storage
from airflow_provider_heapbraze.membership.carried import load_carried
from airflow_provider_heapbraze.membership.entries import Commit
from airflow_provider_heapbraze.membership.space import keep
from airflow_provider_heapbraze.membership.tables import workspace

if TYPE_CHECKING:
    from airflow_provider_heapbraze.membership.entries import Entry, Plan, Settled
    from airflow_provider_heapbraze.membership.ledger import TargetLedger
    from airflow_provider_heapbraze.membership.space import Space

KEY = "kind, value, label"
OF_A, OF_B = (f"{table}.kind, {table}.value, {table}.label" for table in "ab")
ON_KEY = "(a.kind = b.kind AND a.value = b.value AND a.label = b.label)"
# Where a removal has no answer, nobody knows whether the person is still held.
SURELY_HELD = (
    f"(EXISTS (SELECT 1 FROM held b WHERE {ON_KEY}) "
    f"AND NOT EXISTS (SELECT 1 FROM unanswered b WHERE b.remove AND {ON_KEY}))"
)
NOBODY = (
    "SELECT CAST('' AS VARCHAR) AS kind, CAST('' AS VARCHAR) AS value, CAST('' AS VARCHAR) AS label "
    "FROM (SELECT 1 AS one) nothing WHERE false"
)


def load_held(space: Space, ledger: TargetLedger, last: Entry | None) -> int:
    """Make ``held`` (S'), ``unanswered`` (U) and ``may_be_held`` (both).

    ``unanswered`` has the direction of each change, and whether it only repeats an earlier removal.

    :returns: how many surely are held.

    :raises LedgerDamagedError: a file of the ledger does not hold what the log says.
    """
    if last is None or isinstance(last, Commit):
        size = load_snapshot(space, ledger, last.snapshot if last else None, last.size if last else 0, "held")
        space.table("unanswered", f"SELECT {KEY}, false AS remove, false AS again FROM ({NOBODY}) a")
    else:
        settled = ledger.settled(last.plan_id)
        size = _load_held_after(space, ledger, last, settled)
        space.table("unanswered", f"SELECT {KEY}, remove, {_is_repeated(last)} AS again FROM open_changes")
    _load_unsure(space, ledger, last)
    # Joined with the few, not with all: an open plan mostly leaves few rows, or none.
    space.table("held_anew", f"SELECT {OF_A} FROM held a SEMI JOIN unanswered b ON {ON_KEY}")
    beside = f"unanswered a WHERE NOT again AND NOT EXISTS (SELECT 1 FROM held_anew b WHERE {ON_KEY})"
    make_may_be_held(space, beside)
    return size


def make_may_be_held(space: Space, beside: str) -> None:
    """Make the views ``may_be_held``, and ``perhaps_held`` of those among them who surely are not.

    :param beside: SQL that names the latter.
    """
    space.view("perhaps_held", f"SELECT {KEY} FROM {beside}")
    space.view("may_be_held", f"SELECT {KEY} FROM held UNION ALL SELECT {KEY} FROM perhaps_held")


def _load_unsure(space: Space, ledger: TargetLedger, last: Entry | None) -> None:
    """Put those into ``unanswered`` of whom a change had no answer first, and was refused when sent again.

    A refused addition did not make them held, and a refused removal left them held; nobody knows whether they
    are.
    """
    load_carried(space, ledger, last, "unsure", f"SELECT {KEY}, false AS remove FROM ({NOBODY}) a")
    if not space.count("unsure_before"):
        return
    of_held = f"EXISTS (SELECT 1 FROM held b WHERE {ON_KEY})"
    space.table(
        "unanswered",
        f"SELECT {KEY}, remove, again FROM unanswered UNION ALL "
        f"SELECT {KEY}, remove, false AS again FROM unsure_before a "
        f"WHERE ((remove AND {of_held}) OR (NOT remove AND NOT {of_held})) "
        f"AND NOT EXISTS (SELECT 1 FROM unanswered b WHERE {ON_KEY})",
    )


def make_unsure(space: Space) -> None:
    """Make the table ``unsure``, for the next plan: changes of whom an earlier change had no answer."""
    space.table(
        "unsure",
        f"SELECT {OF_A}, a.remove FROM change a SEMI JOIN unanswered b ON {ON_KEY} WHERE NOT a.again",
    )


def load_snapshot(space: Space, ledger: TargetLedger, snapshot: str | None, size: int, view: str) -> int:
    """Make a view of a snapshot: kind, value and label of everybody held; return how many they are.

    :raises LedgerDamagedError: the file does not hold what the log says.
    """
    if snapshot is None:
        space.view(view, NOBODY)
        return 0
    if not space.load(view, ledger.path(snapshot), rows=size):
        raise ledger.not_as_logged(snapshot)
    return size


def load_changes(space: Space, ledger: TargetLedger, plan: Plan) -> None:
    """Make the view ``planned``: a plan's change set.

    :raises LedgerDamagedError: the file does not hold what the log says.
    """
    if not space.load("planned", ledger.path(plan.changes), rows=plan.rows, expected=plan.digest):
        raise ledger.not_as_logged(plan.changes)


def check_files(ledger: TargetLedger, plan: Plan) -> None:
    """Make sure that what a plan needs is there, before more of it is sent.

    :raises LedgerDamagedError: a file of the ledger does not hold what the log says.
    """
    with ledger.spaces.local() as space:
        load_changes(space, ledger, plan)  # the file is what is delivered, wherever the plan was made
    with ledger.spaces.open() as space:
        load_snapshot(space, ledger, plan.base, plan.held, "base")
    ledger.settled(plan.plan_id)


def write_held(space: Space, ledger: TargetLedger, beginning: str) -> str:
    """Write ``held``, which is staged, down as a snapshot.

    :param beginning: of its name, which ends with the digest of what is in it.
    :returns: the name.
    """
    folder, _, _ = beginning.rpartition("/")
    return f"{folder}/{keep(space, 'held', ledger.path(beginning))}"


def write_snapshot(ledger: TargetLedger, plan: Plan, settled: Settled) -> tuple[str | None, int]:
    """Write down what is held once a plan is done.

    :returns: the snapshot's name, None where nobody is held; and its size.
    :raises LedgerDamagedError: a file of the ledger does not hold what the log says.
    """
    if not settled.acknowledged and not settled.rejected:
        return plan.base, plan.held
    with ledger.spaces.open() as space:
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
            f'SELECT {KEY}, remove, reason FROM planned JOIN refused ON file_row_number = "row"', rejected
        )
        storage.write_whole(ledger.path(name), rejected)
    return name


def _load_refused(space: Space, settled: Settled) -> None:
    space.rows(
        "refused",
        '"row" BIGINT, reason VARCHAR',
        {"row": list(settled.rejected), "reason": list(settled.rejected.values())},
    )


def _is_repeated(plan: Plan) -> str:
    """Return SQL that tells whether a row of a change set repeats a removal that was made before."""
    return f"(remove AND file_row_number >= {plan.first_removes})"


def _load_held_after(space: Space, ledger: TargetLedger, plan: Plan, settled: Settled) -> int:
    """Make the tables ``held``, the plan's base with its acknowledged changes, and ``open_changes``.

    Whose removal was refused is held as before, and somebody whose addition never had an answer may be.
    """
    load_snapshot(space, ledger, plan.base, plan.held, "base")
    load_changes(space, ledger, plan)
    _load_refused(space, settled)
    # What is open is few ranges, or none; what was acknowledged, between rows that were refused, is many.
    still_open = list(settled.open_ranges(0, plan.rows))
    space.rows(
        "still_open",
        "first BIGINT, stop BIGINT",
        {"first": [first for first, _ in still_open], "stop": [stop for _, stop in still_open]},
    )
    space.table(
        "open_changes",
        f"SELECT {KEY}, remove, file_row_number FROM planned "
        "JOIN still_open ON file_row_number >= first AND file_row_number < stop",
    )
    space.view(
        "acknowledged",
        f"SELECT {OF_A}, a.remove FROM planned a "
        "ANTI JOIN open_changes b ON a.file_row_number = b.file_row_number "
        'ANTI JOIN refused c ON a.file_row_number = c."row"',
    )
    stay = (
        f'SELECT {KEY} FROM planned JOIN refused ON file_row_number = "row" '
        f"WHERE remove AND NOT {_is_repeated(plan)}"
    )
    space.table("entered", f"SELECT {KEY} FROM acknowledged WHERE NOT remove UNION ALL {stay}")
    space.table("in_before", f"SELECT {OF_A} FROM base a SEMI JOIN entered b ON {ON_KEY}")
    space.stage(
        "held",
        f"SELECT {OF_A} FROM base a "
        f"ANTI JOIN (SELECT {KEY} FROM acknowledged WHERE remove) b ON {ON_KEY} "
        f"UNION ALL SELECT {OF_A} FROM entered a ANTI JOIN in_before b ON {ON_KEY}",
    )
    return space.count("held")
