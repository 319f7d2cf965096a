"""The control API: what a test sets up, and what it asks afterwards."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Annotated

from fastapi import APIRouter, Depends, HTTPException, Request, Response

from airflow_provider_heapbraze import __version__
from airflow_provider_heapbraze.sandbox import answers, faults, models, world
from airflow_provider_heapbraze.sandbox.reading import Reading

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from airflow_provider_heapbraze.sandbox.cohorts import Cohort
    from airflow_provider_heapbraze.sandbox.people import User

router = APIRouter(prefix="/sandbox")


async def _world(request: Request) -> world.World:
    held: world.World = request.app.state.world
    return held


TheWorld = Annotated[world.World, Depends(_world)]


@router.get("/health")
async def health() -> answers.Health:
    """Say that the sandbox answers."""
    return answers.Health(version=__version__)


@router.post("/reset", status_code=204)
async def reset(request: Request) -> None:
    """Forget everything; the sandbox is as it was when it started."""
    request.app.state.world.end()
    request.app.state.world = request.app.state.new_world()


@router.post("/users")
async def add_users(new: models.NewUsers, here: TheWorld) -> answers.UserCounts:
    """Add users to Braze; the answer counts all there are."""
    try:
        here.people.add(new)
    except ValueError as error:
        raise HTTPException(409, str(error)) from None
    return _user_counts(here.people.users)


@router.post("/segments", status_code=204)
async def add_segments(new: models.NewSegments, here: TheWorld) -> None:
    """Add segments to Braze."""
    here.segments.update({segment.id: segment for segment in new.segments})


@router.post("/settings", status_code=204)
async def change_settings(change: models.Settings, here: TheWorld) -> None:
    """Change keys, permissions, limits and how reads behave; what is not named stays."""
    here.change_settings(change)


@router.post("/faults", status_code=204)
async def set_faults(plan: models.Faults, here: TheWorld) -> None:
    """Say what goes wrong from now on, in place of what was said before."""
    here.faults = faults.FaultPlan(plan)


@router.get("/state")
async def state(here: TheWorld) -> answers.State:
    """Count everything."""
    return answers.State(
        users=_user_counts(here.people.users),
        created_users=here.created_users,
        cohorts={
            cohort_id: answers.CohortState(
                name=cohort.name, size=len(cohort.members), identifiers=cohort.sizes()
            )
            for cohort_id, cohort in here.cohorts.items()
        },
        attributes={name: _attribute_counts(values.values()) for name, values in here.attributes.items()},
        segments=len(here.segments),
        heap=answers.HeapCounts(
            users=len(here.heap.users), events=len(here.heap.events), duplicates=here.heap.duplicates
        ),
        conflicts=here.conflicts,
        limits_broken={str(group): count for group, count in here.limits.broken.items()},
        ignored=dict(here.ignored),
        requests={endpoint: dict(counts) for endpoint, counts in here.log.counts.items()},
    )


@router.get("/cohorts/{cohort_id:path}")
async def cohort(cohort_id: str, here: TheWorld) -> answers.CohortMembers:
    """Tell who is in a cohort, which in Braze nobody can."""
    found = here.cohorts.get(cohort_id)
    if found is None:
        raise HTTPException(404, "no such cohort")
    return _cohort_members(cohort_id, found)


@router.get("/segments/{segment_id}")
async def segment(segment_id: str, here: TheWorld) -> answers.SegmentMembers:
    """Tell who is in a segment at this moment, however far reads lag behind."""
    found = here.segments.get(segment_id)
    if found is None:
        raise HTTPException(404, "no such segment")
    members = _shown(Reading(here).members(found))
    return answers.SegmentMembers(segment_id=segment_id, size=len(members), members=members)


@router.get("/exports")
async def exports(here: TheWorld) -> list[answers.SegmentExport]:
    """List the segment exports in the order of their start."""
    return [
        answers.SegmentExport(
            segment_id=export.segment_id,
            object_prefix=export.object_prefix,
            ready=export.ready,
            files=export.files,
            users=export.users,
        )
        for export in here.exports.started
    ]


@router.get("/attributes/{name}")
async def attribute(name: str, here: TheWorld) -> answers.AttributeUsers:
    """Tell who has a custom attribute."""
    values = here.attributes.get(name, {})
    return answers.AttributeUsers(
        name=name,
        true=_shown(user for user, value in values.items() if value is True),
        false=_shown(user for user, value in values.items() if value is False),
        other=_attribute_counts(values.values()).other,
    )


@router.get("/heap/events")
async def heap_events(here: TheWorld) -> list[answers.HeapEvent]:
    """List Heap's events in the order of their arrival."""
    return [
        answers.HeapEvent(
            event=event.event,
            timestamp=event.timestamp,
            idempotency_key=event.idempotency_key,
            properties=event.properties,
            **_person(event.person),
        )
        for event in here.heap.events
    ]


@router.get("/heap/sends")
async def heap_sends(here: TheWorld) -> dict[int, int]:
    """Count Heap's events by how often they were sent, whatever was answered."""
    return dict(sorted(Counter(here.heap.sends.values()).items()))


@router.get("/heap/users")
async def heap_users(here: TheWorld) -> list[answers.HeapUser]:
    """List Heap's users in the order in which they came."""
    return [
        answers.HeapUser(properties=properties, **_person(person))
        for person, properties in here.heap.users.items()
    ]


@router.get("/requests")
async def requests(here: TheWorld, since: int = 0) -> list[answers.RequestEntry]:
    """List what came in, after a sequence number."""
    return here.log.since(since)


async def front_page(_: Request) -> Response:
    """Answer where a connection test only looks whether somebody is there."""
    return Response("A sandbox for Braze and Heap: see /sandbox/state\n", media_type="text/plain")


def _user_counts(users: set[User]) -> answers.UserCounts:
    identified = sum(user.identified for user in users)
    return answers.UserCounts(total=len(users), identified=identified, anonymous=len(users) - identified)


def _attribute_counts(values: Iterable[object]) -> answers.AttributeCounts:
    held = list(values)
    true, false = sum(value is True for value in held), sum(value is False for value in held)
    return answers.AttributeCounts(true=true, false=false, other=len(held) - true - false)


def _cohort_members(cohort_id: str, cohort: Cohort) -> answers.CohortMembers:
    return answers.CohortMembers(
        cohort_id=cohort_id,
        name=cohort.name,
        created_at=cohort.created_at,
        size=len(cohort.members),
        identifiers=cohort.sizes(),
        members=_shown(cohort.members),
        sent=answers.SentIdentifiers(
            external_id=sorted(cohort.external_ids),
            alias=sorted(cohort.aliases),
            device_id=sorted(cohort.device_ids),
        ),
    )


def _shown(users: Iterable[User]) -> list[str]:
    return sorted(user.shown_as for user in users)


def _person(person: tuple[str, str]) -> Mapping[str, str | None]:
    kind, value = person
    return {"identity": None, "user_id": None, kind: value}
