"""Everything the sandbox holds. It is only touched in the server's event loop: it needs no locks."""

from __future__ import annotations

from collections import Counter, defaultdict
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from airflow_provider_heapbraze.sandbox.cohorts import Cohort
from airflow_provider_heapbraze.sandbox.exports import Exports
from airflow_provider_heapbraze.sandbox.faults import FaultPlan
from airflow_provider_heapbraze.sandbox.heap import Heap
from airflow_provider_heapbraze.sandbox.limits import Limits
from airflow_provider_heapbraze.sandbox.models import Faults, Settings
from airflow_provider_heapbraze.sandbox.people import People
from airflow_provider_heapbraze.sandbox.reading import Journal, Reading
from airflow_provider_heapbraze.sandbox.requestlog import RequestLog

if TYPE_CHECKING:
    from collections.abc import Iterator

    from airflow_provider_heapbraze.sandbox.models import Segment
    from airflow_provider_heapbraze.sandbox.people import User


class World:
    """One Braze workspace and one Heap environment, their settings, and what went wrong.

    A reset puts a new world in the place of the old one; requests under way end in the old one.
    """

    def __init__(self, faults: Faults | None = None) -> None:
        self.settings = Settings()
        self.limits = Limits(self.settings.limits)
        self.faults = FaultPlan(faults or Faults())
        self.people = People()
        self.cohorts: dict[str, Cohort] = {}
        self.attributes: dict[str, dict[User, Any]] = {}
        self.segments: dict[str, Segment] = {}
        self.journal = Journal()
        self.exports = Exports()
        self.heap = Heap()
        self.log = RequestLog()
        self.created_users = 0
        self.conflicts = 0
        self.ignored: Counter[str] = Counter()
        self._under_way: defaultdict[str, int] = defaultdict(int)

    def change_settings(self, change: Settings) -> None:
        """Take over what a change names."""
        self.settings = self.settings.changed_by(change)
        self.limits.change(self.settings.limits)
        self.journal.keep(self.settings.read_lag)

    def end(self) -> None:
        """End what runs by itself, before another world takes this one's place."""
        self.exports.end()

    def reading(self) -> Reading:
        """Return the workspace as exports see it."""
        return Reading(self, self.journal.before())

    def cohort(self, cohort_id: str) -> Cohort:
        """Return a cohort, made where there was none."""
        return self.cohorts.setdefault(cohort_id, Cohort())

    def set_attribute(self, user: User, name: str, value: Any) -> None:
        """Set a custom attribute; None unsets it, ``{"add": […], "remove": […]}`` changes an array."""
        users = self.attributes.setdefault(name, {})
        self.journal.note(("attribute", name), ((user, users.get(user)),))
        if value is None:
            users.pop(user, None)
        elif isinstance(value, dict) and value.keys() <= {"add", "remove"}:
            users[user] = _changed(users.get(user), value)
        else:
            users[user] = value

    @contextmanager
    def under_way(self, cohort_id: str | None) -> Iterator[bool]:
        """Hold a request of a cohort; yields whether another one of that cohort is under way."""
        if cohort_id is None:
            yield False
            return
        overlap = self._under_way[cohort_id] > 0
        self._under_way[cohort_id] += 1
        try:
            yield overlap
        finally:
            self._under_way[cohort_id] -= 1


def _changed(held: Any, change: dict[str, list[Any]]) -> list[Any]:
    before = held if isinstance(held, list) else []
    kept = [item for item in before if item not in change.get("remove", [])]
    return kept + [item for item in change.get("add", []) if item not in kept]
