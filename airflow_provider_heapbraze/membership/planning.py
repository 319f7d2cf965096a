"""From what is held and what is wanted to a change set that is written down.

With S' = what surely is held, U = changes of an unfinished plan that have no answer, and W = the wanted set::

    adds    = (W - S') + (W and U)
    removes = (S' - W) + (U - W)

So whatever an unfinished plan may have done is asserted again, its removals included: one of them may be of
somebody whom an earlier unfinished plan added, and who is in no snapshot. Nobody is removed whom we did not
add.

By choice a slice of what has not changed is asserted again (:mod:`.reassertion`), and leavers are removed
only after a while (:mod:`.damping`). Where the ledger is damaged, S' is not known: see :mod:`.recovery`.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any

from airflow_provider_heapbraze.ledger_folder import LedgerDamagedError
from airflow_provider_heapbraze.membership.carried import write_carried
from airflow_provider_heapbraze.membership.changing import add, differences, quoted
from airflow_provider_heapbraze.membership.damping import LEAVING, Damping, keep_leavers
from airflow_provider_heapbraze.membership.entries import (
    Commit,
    Memory,
    Plan,
    Unknown,
    changes_of,
    new_plan_id,
)
from airflow_provider_heapbraze.membership.errors import StalePlanError
from airflow_provider_heapbraze.membership.guards import ChangeCounts
from airflow_provider_heapbraze.membership.holding import (
    KEY,
    OF_A,
    ON_KEY,
    load_held,
    make_unsure,
    write_held,
)
from airflow_provider_heapbraze.membership.matching import IDENTIFIERS, OTHERS, load_table
from airflow_provider_heapbraze.membership.one_person import (
    OWNER,
    assert_whom_a_removal_takes,
    keep_whom_another_identifier_holds,
    load_links,
    make_links,
)
from airflow_provider_heapbraze.membership.reassertion import Slice, repeat_removals
from airflow_provider_heapbraze.membership.recovery import load_whatever_is_known

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from airflow_provider_heapbraze.membership.entries import Entry, Last
    from airflow_provider_heapbraze.membership.ledger import TargetLedger
    from airflow_provider_heapbraze.membership.matching import MatchResult
    from airflow_provider_heapbraze.membership.recovery import Found
    from airflow_provider_heapbraze.membership.space import Space


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
    :param goes_on: go on where the ledger is damaged, from whatever is known; else that is an error.
    :param reassert_share: which share of the unchanged people is asserted again, 0 to 1.
    :param damping: how long leavers must be absent before they are removed.
    """

    run_id: str
    match: MatchResult
    match_folder: Path
    kinds: Sequence[str]
    name: str | None
    force_full: bool
    as_of: str
    goes_on: bool = False
    reassert_share: float = 0
    damping: Damping = field(default_factory=Damping)


def own_open_plan(last: Last | None, request: Request) -> Plan | None:
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


def make_plan(ledger: TargetLedger, last: Last | None, request: Request) -> Plan:
    """Compute the change set and write it down as a draft; nothing is sent and no place is taken.

    :raises LedgerDamagedError: a file of the ledger does not hold what the log says.
    :raises StalePlanError: a later night was imported already.
    """
    check_order(last, request.as_of)
    try:
        return _make_plan(ledger, last, request)
    except LedgerDamagedError:
        if not request.goes_on or last is None or isinstance(last, Unknown):
            raise
    return _make_plan(ledger, Unknown(last.number), request)


def _make_plan(ledger: TargetLedger, last: Last | None, request: Request) -> Plan:
    number = last.number + 1 if last else 1
    plan_id = new_plan_id(number)
    ledger.describe_target()
    with ledger.spaces.open() as space:
        _load_match(space, request)
        start = _load_start(space, ledger, last, request.match_folder.parent)
        slice_ = Slice.after(start.memory.slice, request.reassert_share, everybody=request.force_full)
        met = _changes(space, slice_, request.kinds)
        if not start.found:
            repeat_removals(space, ledger, start.memory.plans, slice_)
        keep_whom_another_identifier_holds(space)
        leaving = keep_leavers(space, ledger, start.last, request.as_of, request.damping)
        assert_whom_a_removal_takes(space)
        make_links(space)
        make_unsure(space)
        _meet(space)
        written = space.publish(f"{KEY}, remove", "change", ORDER, ledger.path(changes_of(plan_id)))
        counts = {**_counts(space, request, start.held, met), "leaving": leaving}
        carried = write_carried(space, ledger, plan_id, CARRIED)
        named = _surely_named(ledger, start.last)
        plan = Plan(
            number=number,
            plan_id=plan_id,
            run_id=request.run_id,
            fingerprint=request.match.fingerprint,
            base=_base(space, ledger, start.last, plan_id),
            held=start.held,
            adds=counts["adds"],
            removes=counts["removes"],
            forced=request.force_full,
            name=request.name if _is_anybody(counts) or named else None,
            name_known=named == request.name,
            counts=counts,
            change=asdict(_change_counts(space, counts["wanted"], request.match)),
            as_of=request.as_of,
            digest=written,
            repeated=space.count("change WHERE again"),
            memory=replace(start.memory, slice=slice_.number, carried=carried),
            recovery=asdict(start.found) if start.found else None,
        )
    ledger.draft(plan)
    return plan


@dataclass(frozen=True)
class Start:
    """What a plan starts from.

    :param last: the newest entry; None where there is none, or where it does not tell who is held.
    :param memory: what the runs before hand on.
    :param held: how many people surely are held.
    :param found: what is left of a damaged ledger.
    """

    last: Entry | None
    memory: Memory
    held: int
    found: Found | None = None


def _load_start(space: Space, ledger: TargetLedger, last: Last | None, matches: Path) -> Start:
    """Make ``held``, ``unanswered``, ``may_be_held`` and ``known_links``."""
    if not isinstance(last, Unknown):
        start = Start(last, _memory_after(last), load_held(space, ledger, last))
    else:
        found = load_whatever_is_known(space, ledger, last.number)
        newest = next(ledger.recent_entries(last.number + 1), None)
        start = Start(None, _memory_after(newest), 0, found)
    load_links(space, ledger, start.last, matches)
    return start


def _memory_after(last: Entry | None) -> Memory:
    if last is None:
        return Memory()
    return last.left_behind if isinstance(last, Plan) else last.memory


def finished_before(last: Last | None, request: Request) -> Commit | None:
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


def check_order(last: Last | None, request_as_of: str) -> None:
    """Make sure that no later night was imported already.

    :raises StalePlanError: one was; an older segment would undo it.
    """
    if last is not None and not isinstance(last, Unknown) and last.as_of > request_as_of:
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


def _base(space: Space, ledger: TargetLedger, last: Entry | None, plan_id: str) -> str | None:
    """Name the snapshot that the plan starts from; after an unfinished plan it is a new one."""
    if last is None:
        return None
    if isinstance(last, Commit):
        return last.snapshot
    if not space.count("held"):
        return None
    return write_held(space, ledger, f"plans/{plan_id}/base")


def _load_match(space: Space, request: Request) -> None:
    """Make the views ``matched``, ``wanted`` and ``others``."""
    match = request.match
    there = load_table(space, "matched", request.match_folder, match, IDENTIFIERS)
    if not (there and load_table(space, "others", request.match_folder, match, OTHERS)):
        in_warehouse = f", or its tables in connection {match.engine!r}" if match.engine else ""
        raise LedgerDamagedError(
            f"The match {request.match.fingerprint} is missing in the ledger{in_warehouse}, or damaged. "
            "Nothing was sent. Clear the match task to make it again."
        )
    space.view("wanted", f"SELECT {KEY} FROM matched WHERE kind IN ({quoted(request.kinds)})")


def _changes(space: Space, slice_: Slice, kinds: Sequence[str]) -> int:
    """Make the table ``change`` by the formulas above, and ``leavers``: who may be held and is not wanted.

    :returns: how many additions are people who were met among the wanted.
    """
    space.table("change", differences(kinds, slice_))
    met = space.count("change WHERE NOT remove")
    space.table("wanted_anew", f"SELECT {OF_A} FROM wanted a SEMI JOIN unanswered b ON {ON_KEY}")
    add(
        space,
        f"SELECT {OF_A}, b.kind IS NULL AS remove, a.again AND b.kind IS NULL AS again "
        f"FROM (SELECT {OF_A}, a.again FROM unanswered a ANTI JOIN change b ON {ON_KEY}) a "
        f"LEFT JOIN wanted_anew b ON {ON_KEY}",
    )
    space.table("leavers", f"SELECT {KEY} FROM change WHERE remove AND NOT again")
    return met


CARRIED = {"leaving": LEAVING, "links": f"{KEY}, {OWNER}", "unsure": f"{KEY}, remove"}
# Removals first, the repeated ones after the others; then the additions. The rest is for a change set that is
# the same to the last bit, whoever made it.
ORDER = f"CASE WHEN NOT remove THEN 2 WHEN again THEN 1 ELSE 0 END, {KEY}"
_IN_HELD = f"EXISTS (SELECT 1 FROM changed_held b WHERE {ON_KEY})"
_MAY_BE_HELD = f"({_IN_HELD} OR EXISTS (SELECT 1 FROM changed_perhaps_held b WHERE {ON_KEY}))"


def _meet(space: Space) -> None:
    """Make tables of who is in ``change``, and is held, or perhaps held: for counting.

    The few of ``change`` are looked up among the many once, not for each count anew.
    """
    for view in ("held", "perhaps_held"):
        space.table(f"changed_{view}", f"SELECT {OF_A} FROM {view} a SEMI JOIN change b ON {ON_KEY}")


def _counts(space: Space, request: Request, held: int, met: int) -> dict[str, Any]:
    """Count the waterfall from the members down to the plan.

    :param met: how many additions are surely among the wanted.
    """
    counts = request.match.counts
    wanted, adds = space.count("wanted"), space.count("change WHERE NOT remove")
    # Where others were added since, each is looked up, so that a plan is noticed that does not add up.
    changed = met if adds == met else space.count(f"wanted a SEMI JOIN change b ON {ON_KEY}")
    return {
        "members": counts["members"],
        "unmatched": counts["unmatched"],
        "duplicates": counts["duplicates"],
        "matched": counts["matched"],
        "undeliverable": space.count(f"matched WHERE kind NOT IN ({quoted(request.kinds)})"),
        "wanted": wanted,
        "held": held,
        "unchanged": wanted - changed,
        "adds": adds,
        "removes": space.count("change WHERE remove"),
        # Who enters and is in already, and who leaves and is out already.
        "asserted_again": space.count(f"change a WHERE NOT remove AND {_IN_HELD}")
        + space.count(f"change a WHERE remove AND NOT {_MAY_BE_HELD}"),
    }


def _change_counts(space: Space, wanted: int, match: MatchResult) -> ChangeCounts:
    """Count what guards look at; what is asserted again changes nothing."""
    members = match.counts["members"]
    unmatched = sum(match.counts["unmatched"].values())
    return ChangeCounts(
        members=members,
        match_rate=(members - unmatched) / members if members else 1.0,
        wanted=wanted,
        held=space.count("may_be_held"),
        adds=space.count(f"change a WHERE NOT remove AND NOT {_MAY_BE_HELD}"),
        removes=space.count(f"change a WHERE remove AND {_MAY_BE_HELD}"),
        taken_at=match.taken_at.isoformat(),
    )
