"""However pages come, are spread over files and runs, and are deleted: the same members as all at once."""

from __future__ import annotations

import shutil
import tempfile
from contextlib import suppress
from hashlib import sha256
from pathlib import Path

from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from airflow_provider_heapbraze.clients.errors import ConfigurationError
from airflow_provider_heapbraze.segments_sync.errors import IncompleteSyncError
from tests.unit.segments_sync.pushing import Pushed, drain, page

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
        seconds = round(seconds + draw(st.sampled_from([0, 0.001, 5, 2000])), 3)
        # A repeat is seen with the page itself, or later.
        run = runs[key] = max(draw(st.integers(0, 2)), runs[key] if again else 0)
        arrivals.append((seconds, key, body, run))
    return arrivals


def reference(arrivals):
    """Return (members, when they were so), the plain way."""
    firsts = {}
    for seconds, key, body, _ in arrivals:
        firsts.setdefault(key, (seconds, body))
    drained_at = max((at for key, (at, _) in firsts.items() if key[0] == "drain"), default=-1)
    done = {}
    for key, (at, body) in firsts.items():
        if key[0] == "task":
            done.setdefault(key[1], []).append((at, body["data"]))
    members, newest = {}, [drained_at]
    for number, pages in sorted(
        done.items(),
        key=lambda task: (min(at for at, _ in task[1]), sha256(f"task task {task[0]}".encode()).hexdigest()),
    ):
        if min(at for at, _ in pages) > drained_at:
            newest.append(max(at for at, _ in pages))
            members.update({one["id"]: number for _, data in pages for one in data["add"]})
            for _, data in pages:
                for one in data["remove"]:
                    members.pop(one["id"], None)
    return sorted(members, key=repr), max(newest)


def land(pushed, arrivals, together):
    """Land what one run sees, several webhooks to a file where it is asked for."""
    for start in range(0, len(arrivals), together):
        chunk = arrivals[start : start + together]
        # Each drain has a signature's time of its own, and keeps it when it comes again.
        signed = [(body, at, key[1] if key[0] == "drain" else at) for at, key, body, _ in chunk]
        pushed.land_file(signed[::-1])


def fold_in_runs(arrivals, together, *, delete):
    with tempfile.TemporaryDirectory() as folder:
        pushed = Pushed(Path(folder))
        for run in range(3):
            land(pushed, [arrival for arrival in arrivals if arrival[3] == run], together)
            if run < 2:
                with suppress(IncompleteSyncError, ConfigurationError):  # not all of it is there
                    pushed.members()
                    if delete:
                        shutil.rmtree(pushed.folder, ignore_errors=True)
        members, as_of = pushed.fold()
        return sorted(members, key=repr), as_of


# Shrinking would take minutes; a history is short enough to be read as it is.
few = settings(
    max_examples=10,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
    phases=[Phase.explicit, Phase.reuse, Phase.generate],
)


@few
@given(arrivals=histories(), together=st.integers(1, 4), delete=st.booleans())
def test_in_any_order_the_members_are_the_same(arrivals, together, delete):
    members, _ = fold_in_runs(arrivals, together, delete=delete)
    assert members == reference(arrivals)[0]


@few
@given(arrivals=histories(), together=st.integers(1, 4), delete=st.booleans(), data=st.data())
def test_in_the_order_of_time_so_is_their_time(arrivals, together, delete, data):
    cuts = sorted(data.draw(st.lists(st.integers(0, len(arrivals)), min_size=2, max_size=2)))
    in_order = [(*arrival[:3], sum(place >= cut for cut in cuts)) for place, arrival in enumerate(arrivals)]
    assert fold_in_runs(in_order, together, delete=delete) == reference(in_order)
