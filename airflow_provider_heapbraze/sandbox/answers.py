"""What the control API gives: counts, members and the request log."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel


class UserCounts(BaseModel):
    """How many users Braze has."""

    total: int
    identified: int
    anonymous: int


class CohortState(BaseModel):
    """A cohort: how many users are in it, and how many identifiers of each kind a sender thinks are."""

    name: str | None
    size: int
    identifiers: dict[str, int]


class SentIdentifiers(BaseModel):
    """Identifiers by kind; aliases as ``[name, label]``."""

    external_id: list[str]
    alias: list[tuple[str, str]]
    device_id: list[str]


class CohortMembers(BaseModel):
    """A cohort with its users.

    :param members: users by external id, else ``alias:<label>/<name>``, else ``device:<id>``; sorted.
    :param sent: identifiers that were added and not removed since, whether a user has them or not.
    """

    cohort_id: str
    name: str | None
    created_at: str | None
    size: int
    identifiers: dict[str, int]
    members: list[str]
    sent: SentIdentifiers


class SegmentMembers(BaseModel):
    """A segment with its users at this moment, named as a cohort's members are."""

    segment_id: str
    size: int
    members: list[str]


class SegmentExport(BaseModel):
    """A segment export.

    :param ready: whether all of its files are there.
    :param files: how many it has when it is ready.
    """

    segment_id: str
    object_prefix: str
    ready: bool
    files: int
    users: int


class AttributeUsers(BaseModel):
    """Who has a custom attribute, named as a cohort's members are; ``other`` counts other values."""

    name: str
    true: list[str]
    false: list[str]
    other: int


class AttributeCounts(BaseModel):
    """How many users have a custom attribute."""

    true: int
    false: int
    other: int


class HeapCounts(BaseModel):
    """What Heap holds; ``duplicates`` are events whose idempotency key was there already."""

    users: int
    events: int
    duplicates: int


class HeapEvent(BaseModel):
    """An event in Heap."""

    event: str
    identity: str | None
    user_id: str | None
    timestamp: str | None
    idempotency_key: str | None
    properties: dict[str, int | float | str]


class HeapUser(BaseModel):
    """A user in Heap."""

    identity: str | None
    user_id: str | None
    properties: dict[str, int | float | str]


class State(BaseModel):
    """All counts.

    :param created_users: users that ``/users/track`` created, for want of ``_update_existing_only``.
    :param conflicts: people that one request both added and removed.
    :param limits_broken: requests above the limit, by group; one above two limits counts for both.
    :param ignored: identifiers that moved nobody: ``unknown``, ``device_of_identified``.
    :param requests: by endpoint and status; ``cut`` is a connection that was cut.
    """

    users: UserCounts
    created_users: int
    cohorts: dict[str, CohortState]
    attributes: dict[str, AttributeCounts]
    segments: int
    heap: HeapCounts
    conflicts: int
    limits_broken: dict[str, int]
    ignored: dict[str, int]
    requests: dict[str, dict[str, int]]


class RequestEntry(BaseModel):
    """One request, without identifiers, keys or bodies.

    :param time: when it had arrived, UTC epoch seconds.
    :param seconds: until it was answered; None while it is under way.
    :param path: with placeholders.
    :param status: of the answer; None where the connection was cut, or while it is under way.
    :param fault: what went wrong on order.
    :param applied: whether it took effect.
    :param overlap: whether another request of the same cohort was under way.
    :param ids: number of identifiers by direction (``add``, ``remove``; ``set`` for attributes, events and
        properties; ``get`` for users to show) and kind.
    :param body_sha256: tells a repeat from a new request.
    """

    sequence: int
    time: float
    seconds: float | None = None
    endpoint: str
    method: str
    path: str
    status: int | None = None
    fault: str | None = None
    applied: bool = False
    overlap: bool = False
    ids: dict[str, dict[str, int]] = {}
    body_sha256: str


class Health(BaseModel):
    """That the sandbox answers."""

    status: Literal["ok"] = "ok"
    version: str
