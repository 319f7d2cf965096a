"""From what is held and what is wanted to a change set that is written down.

With S' = what surely is held, U = changes of an unfinished plan that have no answer, and W = the wanted set::

    adds    = (W - S') + (W and U)
    removes = (S' - W) + (U - W)

So whatever an unfinished plan may have done is asserted again, its removals included: one of them may be of
somebody whom an earlier unfinished plan added, and who is in no snapshot. Nobody is removed whom we did not
add.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from airflow_provider_heapbraze import storage
from airflow_provider_heapbraze.ledger_folder import LedgerDamagedError
from airflow_provider_heapbraze.membership.entries import Commit, Plan, Settled, new_plan_id
from airflow_provider_heapbraze.membership.errors import StalePlanError
from airflow_provider_heapbraze.membership.guards import ChangeCounts
from airflow_provider_heapbraze.membership.tables import workspace

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from airflow_provider_heapbraze.membership.entries import Entry
    from airflow_provider_heapbraze.membership.ledger import TargetLedger
    from airflow_provider_heapbraze.membership.matching import MatchResult
    from airflow_provider_heapbraze.membership.tables import Workspace

KEY = "kind, value, label"
ON_KEY = "(a.kind = b.kind AND a.value = b.value AND a.label = b.label)"


@dataclass(frozen=True)
class Request:
    """What a run asks for.

    :param run_id: who asks; the same run coming back goes on with its own plan.
    :param match: whom the other side is to hold.
    :param match_folder: where the match's files are.
    :param kinds: kinds of identifiers that the delivery can send.
    :param name: name that the target is to have, or None where it has no name. A cohort that never had a
        member gets none: nothing is made for nobody.
    :param force_full: assert everybody again.
    :param as_of: the time that the run is for, ISO 8601, UTC: an older run does not follow a newer one.
    """

    run_id: str
    match: MatchResult
    match_folder: Path
    kinds: Sequence[str]
    name: str | None
    force_full: bool
    as_of: str


def own_open_plan(last: Entry | None, request: Request) -> Plan | None:
    """Return the open plan that this very run left behind, if it still fits what is asked for."""
    if (
        isinstance(last, Plan)
        and last.run_id == request.run_id
        and last.fingerprint == request.match.fingerprint
        and last.name == request.name
        and last.forced == request.force_full
    ):
        return last
    return None


def make_plan(ledger: TargetLedger, last: Entry | None, request: Request) -> Plan:
    """Compute the change set and write it down as a draft; nothing is sent and no place is taken.

    :raises LedgerDamagedError: a file of the ledger does not hold what the log says.
    :raises StalePlanError: a later night was imported already.
    """
    check_order(last, request.as_of)
    plan_id = new_plan_id(last.number + 1 if last else 1)
    ledger.describe_target()
    with workspace() as space:
        held = _load_held(space, ledger, last)
        _load_match(space, request)
        base = _base(space, ledger, last, plan_id)
        _changes(space, forced=request.force_full)
        changes = space.folder / "changes.parquet"
        space.write(
            f"SELECT {KEY}, remove FROM change WHERE NOT remove "
            f"UNION ALL SELECT {KEY}, remove FROM change WHERE remove",
            changes,
        )
        counts = _counts(space, request, held)
        plan = Plan(
            number=last.number + 1 if last else 1,
            plan_id=plan_id,
            run_id=request.run_id,
            fingerprint=request.match.fingerprint,
            base=base,
            held=held,
            adds=counts["adds"],
            removes=counts["removes"],
            forced=request.force_full,
            name=request.name if _is_anybody(counts) or _surely_named(ledger, last) else None,
            name_known=_surely_named(ledger, last) == request.name,
            counts=counts,
            change=asdict(_change_counts(space, counts, request.match)),
            as_of=request.as_of,
        )
        storage.write_whole(ledger.path(plan.changes), changes)
    ledger.draft(plan)
    return plan


def write_snapshot(ledger: TargetLedger, plan: Plan, settled: Settled) -> tuple[str | None, int]:
    """Write down what is held once a plan is done.

    :returns: the snapshot's name, None where nobody is held; and its size.
    :raises LedgerDamagedError: a file of the ledger does not hold what the log says.
    """
    if not settled.acknowledged:
        return plan.base, plan.held
    with workspace() as space:
        size = _load_held_after(space, ledger, plan, settled)
        name = f"snapshots/{plan.plan_id}-{uuid4().hex[:8]}.parquet" if size else None
        if name:
            _write_held(space, ledger, name)
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


def finished_before(last: Entry | None, request: Request) -> Commit | None:
    """Return the commit that this very run made, if it asks for the same again."""
    if (
        isinstance(last, Commit)
        and last.run_id == request.run_id
        and last.fingerprint == request.match.fingerprint
        and last.name in {request.name, None}
        and last.forced == request.force_full
    ):
        return last
    return None


def check_order(last: Entry | None, request_as_of: str) -> None:
    """Make sure that no later night was imported already.

    :raises StalePlanError: one was; an older segment would undo it.
    """
    if last is not None and last.as_of > request_as_of:
        raise StalePlanError(
            f"Run {last.run_id} is of a later time ({last.as_of}) than this one ({request_as_of}) and was "
            "imported already: an older segment would undo it. Nothing was sent. Clear the newest run "
            "instead, or trigger a new one."
        )


def _is_anybody(counts: Mapping[str, Any]) -> bool:
    return any(counts[name] for name in ("wanted", "held", "removes"))


def _surely_named(ledger: TargetLedger, last: Entry | None) -> str | None:
    """Return the name that the target surely has; an unanswered request may have given it another."""
    if isinstance(last, Commit):
        return last.name
    if isinstance(last, Plan) and (last.name_known or ledger.settled(last.plan_id).named):
        return last.name
    return None


def _load_held(space: Workspace, ledger: TargetLedger, last: Entry | None) -> int:
    """Make the views ``held`` (S') and ``unanswered`` (U)."""
    space.sql(f"CREATE TABLE unanswered AS SELECT {_NOBODY} WHERE false")
    if last is None:
        space.sql(f"CREATE VIEW held AS SELECT {_NOBODY} WHERE false")
        return 0
    if isinstance(last, Commit):
        return load_snapshot(space, ledger, last.snapshot, last.size, "held")
    settled = ledger.settled(last.plan_id)
    size = _load_held_after(space, ledger, last, settled)
    _load_refused(space, settled)
    space.sql(
        f"INSERT INTO unanswered SELECT {KEY} FROM planned "
        "WHERE file_row_number NOT IN (SELECT row FROM refused) "
        "AND file_row_number NOT IN (SELECT file_row_number FROM acknowledged)"
    )
    return size


_NOBODY = "''::VARCHAR AS kind, ''::VARCHAR AS value, ''::VARCHAR AS label"


def load_snapshot(space: Workspace, ledger: TargetLedger, snapshot: str | None, size: int, view: str) -> int:
    """Make a view of a snapshot: kind, value and label of everybody held; return how many they are.

    :raises LedgerDamagedError: the file does not hold what the log says.
    """
    if snapshot is None:
        space.sql(f"CREATE VIEW {view} AS SELECT {_NOBODY} WHERE false")
        return 0
    if not space.load(view, ledger.path(snapshot), rows=size):
        raise ledger.not_as_logged(snapshot)
    return size


def load_changes(space: Workspace, ledger: TargetLedger, plan: Plan) -> None:
    """Make the view ``planned``: a plan's change set.

    :raises LedgerDamagedError: the file does not hold what the log says.
    """
    if not space.load("planned", ledger.path(plan.changes), rows=plan.rows):
        raise ledger.not_as_logged(plan.changes)


def _load_refused(space: Workspace, settled: Settled) -> None:
    space.rows(
        "refused",
        "row BIGINT, reason VARCHAR",
        {"row": list(settled.rejected), "reason": list(settled.rejected.values())},
    )


def _load_held_after(space: Workspace, ledger: TargetLedger, plan: Plan, settled: Settled) -> int:
    """Make the table ``held``: the plan's base with its acknowledged changes; and ``acknowledged``."""
    load_snapshot(space, ledger, plan.base, plan.held, "base")
    load_changes(space, ledger, plan)
    space.rows(
        "answered",
        "start BIGINT, stop BIGINT",
        {"start": [s for s, _ in settled.acknowledged], "stop": [e for _, e in settled.acknowledged]},
    )
    space.sql(
        "CREATE TABLE acknowledged AS SELECT planned.* FROM planned ASOF JOIN answered "
        "ON planned.file_row_number >= answered.start WHERE planned.file_row_number < answered.stop"
    )
    space.sql(
        f"CREATE TABLE held AS SELECT {KEY} FROM base a "
        f"WHERE NOT EXISTS (SELECT 1 FROM acknowledged b WHERE b.remove AND {ON_KEY}) "
        f"UNION ALL SELECT {KEY} FROM acknowledged a WHERE NOT a.remove "
        f"AND NOT EXISTS (SELECT 1 FROM base b WHERE {ON_KEY})"
    )
    return space.count("held")


def _write_held(space: Workspace, ledger: TargetLedger, name: str) -> None:
    local = space.folder / "held.parquet"
    space.write(f"SELECT {KEY} FROM held", local)
    storage.write_whole(ledger.path(name), local)


def _base(space: Workspace, ledger: TargetLedger, last: Entry | None, plan_id: str) -> str | None:
    """Name the snapshot that the plan starts from; after an unfinished plan it is a new one."""
    if last is None:
        return None
    if isinstance(last, Commit):
        return last.snapshot
    if not space.count("held"):
        return None
    name = f"plans/{plan_id}/base.parquet"
    _write_held(space, ledger, name)
    return name


def _load_match(space: Workspace, request: Request) -> None:
    """Make the views ``matched``, ``wanted`` and ``others``."""
    matched = space.load(
        "matched", request.match_folder / "identifiers.parquet", rows=request.match.counts["matched"]
    )
    if not (matched and space.load("others", request.match_folder / "others.parquet")):
        raise LedgerDamagedError(
            f"The match {request.match.fingerprint} is missing in the ledger, or damaged. Nothing was sent. "
            "Clear the match task to make it again."
        )
    space.sql(f"CREATE VIEW wanted AS SELECT {KEY} FROM matched WHERE kind IN ({_quoted(request.kinds)})")


def _quoted(kinds: Sequence[str]) -> str:
    return ", ".join(f"'{kind}'" for kind in kinds)


def _changes(space: Workspace, *, forced: bool) -> None:
    """Make the table ``change`` by the formulas above."""
    asserted = "true" if forced else "b.kind IS NULL"
    space.sql(
        "CREATE TABLE change AS SELECT "
        "coalesce(a.kind, b.kind) AS kind, coalesce(a.value, b.value) AS value, "
        "coalesce(a.label, b.label) AS label, a.kind IS NULL AS remove "
        f"FROM wanted a FULL JOIN held b ON {ON_KEY} WHERE a.kind IS NULL OR {asserted}"
    )
    wanted = f"EXISTS (SELECT 1 FROM wanted b WHERE {ON_KEY})"
    changing = f"EXISTS (SELECT 1 FROM change b WHERE {ON_KEY})"
    space.sql(f"INSERT INTO change SELECT {KEY}, NOT {wanted} FROM unanswered a WHERE NOT {changing}")
    # Somebody who is wanted under another identifier now is the same person to the other side: removing the
    # old identifier would remove the person. It stays held, and goes when the person goes.
    space.sql(f"DELETE FROM change a WHERE remove AND EXISTS (SELECT 1 FROM others b WHERE {ON_KEY})")


def _counts(space: Workspace, request: Request, held: int) -> dict[str, Any]:
    """Count the waterfall from the members down to the plan."""
    counts = request.match.counts
    changing = f"EXISTS (SELECT 1 FROM change b WHERE {ON_KEY})"
    return {
        "members": counts["members"],
        "unmatched": counts["unmatched"],
        "duplicates": counts["duplicates"],
        "matched": counts["matched"],
        "undeliverable": space.count(f"matched WHERE kind NOT IN ({_quoted(request.kinds)})"),
        "wanted": space.count("wanted"),
        "held": held,
        "unchanged": space.count(f"wanted a WHERE NOT {changing}"),
        "adds": space.count("change WHERE NOT remove"),
        "removes": space.count("change WHERE remove"),
    }


def _change_counts(space: Workspace, counts: Mapping[str, Any], match: MatchResult) -> ChangeCounts:
    held = f"EXISTS (SELECT 1 FROM held b WHERE {ON_KEY})"
    members = match.counts["members"]
    unmatched = sum(match.counts["unmatched"].values())
    return ChangeCounts(
        members=members,
        match_rate=(members - unmatched) / members if members else 1.0,
        wanted=counts["wanted"],
        held=counts["held"] + space.count(f"unanswered a WHERE NOT {held}"),
        adds=space.count(f"change a WHERE NOT remove AND NOT {held}"),
        removes=counts["removes"],
    )
