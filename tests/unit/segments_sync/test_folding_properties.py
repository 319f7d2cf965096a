"""However pages come, are spread over files and runs, and are deleted: the same members as the plain way."""

from __future__ import annotations

import shutil
import tempfile
from contextlib import suppress
from hashlib import sha256
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from airflow_provider_heapbraze.clients.errors import ConfigurationError
from airflow_provider_heapbraze.segments_sync.errors import FirstSyncMissingError, IncompleteSyncError
from tests.unit.segments_sync.pushing import HOUR, Pushed, drain, moment, page

REFUSALS = (IncompleteSyncError, ConfigurationError, FirstSyncMissingError)

NEVER = -(10**9)  # seconds
PEOPLE = ["ann", "bob", "cid", "dan", 42]
people = st.lists(st.sampled_from(PEOPLE), max_size=3)
tasks = st.lists(st.lists(st.tuples(people, people), min_size=1, max_size=3), min_size=1, max_size=4)


@st.composite
def histories(draw):
    """Return arrivals in the order of their times: (seconds, webhook's key, body, run that sees it)."""
    pages = []
    for number, lists in enumerate(draw(tasks)):
        for place, (add, remove) in enumerate(lists, 1):
            body = page(f"task {number}", add, remove, number=place, total=len(lists))
            pages.append((("task", number, place), body))
    pages += [(("drain", number), drain()) for number in range(draw(st.integers(0, 2)))]
    order = draw(st.permutations(pages))
    order = [(*arrival, False) for arrival in order]
    for key, body in draw(st.lists(st.sampled_from(pages), max_size=3)):
        first = next(place for place, arrival in enumerate(order) if arrival[0] == key)
        order.insert(draw(st.integers(first + 1, len(order))), (key, body, True))
    arrivals, seconds, runs = [], 0.0, {}
    for key, body, again in order:
        seconds = round(seconds + draw(st.sampled_from([0, 0.001, 5, 2000, 10_000])), 3)
        run = max(draw(st.integers(0, 2)), runs[key] if again else 0)
        # A repeat is seen with the page itself, or later; a drain not before an earlier one.
        if key[0] == "drain":
            run = runs["drain"] = max(run, runs.get("drain", 0))
        runs[key] = run
        arrivals.append((seconds, key, body, run))
    return arrivals


class RefusedError(Exception):
    """Who is in the segment is not known."""


def reference(arrivals, full_since=None):
    """Return (members, when they were so), the plain way, from what runs saw one after another."""
    folded = False
    for run in range(3):
        seen = [arrival for arrival in arrivals if arrival[3] <= run]
        with suppress(RefusedError):
            folded = plain(seen, full_since, folded=folded) is not None
    return plain(arrivals, full_since, folded=folded)


def drained(times):
    """Return when the segment was emptied last: a drain within four hours is the same one."""
    last = NEVER
    for at in sorted(times):
        last = at if at - last >= 4 * HOUR else last
    return last


def plain(arrivals, full_since, *, folded):
    """Return (members, when they were so) of all that was seen.

    :param folded: whether that has been known before.
    """
    firsts = {}
    for seconds, key, body, _ in arrivals:
        firsts.setdefault(key, (seconds, body))
    drained_at = drained(at for key, (at, _) in firsts.items() if key[0] == "drain")
    started_at = max(drained_at, NEVER if full_since is None else full_since - 0.001)
    done = {}
    for key, (at, body) in firsts.items():
        if key[0] == "task":
            done.setdefault(key[1], []).append((at, body["data"]))
    members, newest, ever, unknown = {}, [drained_at], set(), set()
    told = {number: pages for number, pages in done.items() if min(at for at, _ in pages) > started_at}
    if any(len(pages) < pages[0][1]["sync_info"]["total_pages"] for pages in told.values()):
        raise RefusedError
    if not told and not NEVER < drained_at == started_at:
        raise RefusedError
    for number, pages in sorted(
        told.items(),
        key=lambda task: (min(at for at, _ in task[1]), sha256(f"task task {task[0]}".encode()).hexdigest()),
    ):
        newest.append(max(at for at, _ in pages))
        members.update({one["id"]: number for _, data in pages for one in data["add"]})
        ever |= {one["id"] for _, data in pages for one in data["add"]}
        for _, data in pages:
            for one in data["remove"]:
                members.pop(one["id"], None)
                unknown.add(one["id"])
    if unknown - ever and started_at == NEVER and not folded:
        raise RefusedError
    return sorted(members, key=repr), max(newest)


def land(pushed, arrivals, together):
    """Land what one run sees, several webhooks to a file where it is asked for."""
    for start in range(0, len(arrivals), together):
        chunk = arrivals[start : start + together]
        # Each drain has a signature's time of its own, and keeps it when it comes again.
        signed = [(body, at, key[1] if key[0] == "drain" else at) for at, key, body, _ in chunk]
        pushed.land_file(signed[::-1])


def fold_in_runs(arrivals, together, full_since, *, delete):
    """Return what the last run gives, after each has told what it could."""
    how = {} if full_since is None else {"full_since": moment(full_since)}
    with tempfile.TemporaryDirectory() as folder:
        pushed = Pushed(Path(folder))
        for run in range(3):
            land(pushed, [arrival for arrival in arrivals if arrival[3] == run], together)
            if run < 2:
                with suppress(*REFUSALS):  # not all of it is there
                    pushed.members(**how)
                    if delete:
                        shutil.rmtree(pushed.folder, ignore_errors=True)
        members, as_of = pushed.fold(**how)
        return sorted(members, key=repr), as_of


def as_the_plain_way(arrivals, together, full_since, *, delete):
    """Return (what was folded, what the plain way gives); None where both refuse."""
    try:
        expected = reference(arrivals, full_since)
    except RefusedError:
        with pytest.raises(REFUSALS):
            fold_in_runs(arrivals, together, full_since, delete=delete)
        return None, None
    return fold_in_runs(arrivals, together, full_since, delete=delete), expected


# Shrinking would take minutes; a history is short enough to be read as it is.
few = settings(
    max_examples=10,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
    phases=[Phase.explicit, Phase.reuse, Phase.generate],
)


starts = st.sampled_from([None, -1, 0, 5, 4000])


@few
@given(arrivals=histories(), together=st.integers(1, 4), full_since=starts, delete=st.booleans())
def test_in_any_order_the_members_are_the_same(arrivals, together, full_since, delete):
    found, expected = as_the_plain_way(arrivals, together, full_since, delete=delete)
    assert found == expected or found[0] == expected[0]


@few
@given(
    arrivals=histories(), together=st.integers(1, 4), full_since=starts, delete=st.booleans(), data=st.data()
)
def test_in_the_order_of_time_so_is_their_time(arrivals, together, full_since, delete, data):
    cuts = sorted(data.draw(st.lists(st.integers(0, len(arrivals)), min_size=2, max_size=2)))
    in_order = [(*arrival[:3], sum(place >= cut for cut in cuts)) for place, arrival in enumerate(arrivals)]
    found, expected = as_the_plain_way(in_order, together, full_since, delete=delete)
    assert found == expected
