"""What exports see of cohorts and attributes: how they were ``read_lag`` seconds ago."""

from __future__ import annotations

import time
from collections import deque
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from airflow_provider_heapbraze.sandbox.models import Segment
    from airflow_provider_heapbraze.sandbox.people import User
    from airflow_provider_heapbraze.sandbox.world import World

# What may be true of a user: a cohort has the user (True, else False); the value of an attribute (else None).
Fact = tuple[Literal["cohort", "attribute"], str]
Values = dict["User", Any]


class Journal:
    """What was true of users before it changed, kept for as long as reads lag behind."""

    def __init__(self, *, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._lag = 0.0
        self._changes: deque[tuple[float, Fact, User, Any]] = deque()

    def keep(self, seconds: float) -> None:
        """Keep changes for so many seconds from now on; 0 keeps none."""
        self._lag = seconds
        if not seconds:
            self._changes.clear()

    def note(self, fact: Fact, before: Iterable[tuple[User, Any]]) -> None:
        """Note what is about to change: users, and what is true of them before."""
        if self._lag:
            self._forget()
            now = self._now()
            self._changes.extend((now, fact, user, value) for user, value in before)

    def before(self) -> dict[Fact, Values]:
        """Return what was true before the changes that reads do not see yet."""
        self._forget()
        values: dict[Fact, Values] = {}
        for _, fact, user, value in self._changes:
            values.setdefault(fact, {}).setdefault(user, value)
        return values

    def _forget(self) -> None:
        seen_until = self._now() - self._lag
        while self._changes and self._changes[0][0] <= seen_until:
            self._changes.popleft()


class Reading:
    """The workspace, with some changes undone.

    :param before: what was true before these changes.
    """

    def __init__(self, world: World, before: Mapping[Fact, Values] | None = None) -> None:
        self._world = world
        self._before = before or {}

    def members(self, segment: Segment) -> list[User]:
        """Return who is in a segment, in no order."""
        if segment.cohort_id is not None:
            return self._in_cohort(segment.cohort_id)
        if segment.attribute is not None:
            return self.holders(segment.attribute, segment.attribute_value)
        return list(self._world.people.users)

    def holders(self, name: str, wanted: object) -> list[User]:
        """Return who has an attribute with a value, or with an array that has it."""
        values = {**self._world.attributes.get(name, {}), **self._before.get(("attribute", name), {})}
        return [user for user, value in values.items() if _matches(value, wanted)]

    def attribute(self, user: User, name: str) -> Any:
        """Return a user's value of an attribute, None where there is none."""
        now = self._world.attributes.get(name, {}).get(user)
        return self._before.get(("attribute", name), {}).get(user, now)

    def attributes(self, user: User) -> dict[str, Any]:
        """Return all values of a user; None where there is none."""
        return {name: self.attribute(user, name) for name in self._world.attributes}

    def _in_cohort(self, cohort_id: str) -> list[User]:
        cohort = self._world.cohorts.get(cohort_id)
        is_member = dict.fromkeys(cohort.members, True) if cohort else {}
        is_member |= self._before.get(("cohort", cohort_id), {})
        return [user for user, is_in in is_member.items() if is_in]


def _matches(value: object, wanted: object) -> bool:
    # To Python True is 1.
    same = value == wanted and isinstance(value, bool) == isinstance(wanted, bool)
    return same or (isinstance(value, list) and wanted in value)
