"""One Currents event becomes one Heap event, the same from every form; or there is a reason why not.

============================ ==============================================================================
Heap                         from Currents
============================ ==============================================================================
``identity``                 ``external_user_id``, or the field that is chosen
``event``                    a readable name of the type; a custom event's own name
``timestamp``                ``time``, ISO 8601, UTC
``idempotency_key``          ``id``
``braze_event_type``         the type
``braze_user_id``            ``user_id``, as far as personal data may go along
every other property         the field of that name; nested objects by dotted names
============================ ==============================================================================
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from fnmatch import translate
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Literal

import msgspec

from airflow_provider_heapbraze.clients.errors import ConfigurationError
from airflow_provider_heapbraze.events.currents import epoch_seconds
from airflow_provider_heapbraze.events.naming import CUSTOM_EVENT, readable_name
from airflow_provider_heapbraze.events.privacy import hashed, personal_fields
from airflow_provider_heapbraze.events.properties import SURELY_SHORT, Properties, Value, as_text, cut

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from airflow_provider_heapbraze.events.currents import CurrentsEvent, Layout

PersonalData = Literal["drop", "hash", "keep"]
Anonymous = Literal["aside", "braze_id"]

# Heap: Track: identity up to 255 characters; the key of an event 8 or more, to be safe.
MOST_IDENTITY = 255
FEWEST_KEY = 8
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
HOUR = 3600
BRAZE_ID = "user_id"
HEAP_USER_ID = "braze_user_id"
HEAP_FIELDS = ("id", "time")

# What a person reads about events that were not sent.
REASONS = {
    "anonymous": "has no identity",
    "no_id": "has no id, so it could not be sent once only",
    "no_time": "has no time, or one that is zero or negative",
    "no_event_type": "has no type: neither the record nor the schema nor the path names it",
    "identity_too_long": f"has an identity of more than {MOST_IDENTITY} characters, which Heap refuses",
    "refused_400": "was refused by Heap when sent alone",
    "refused_413": "is too large for Heap",
}


@dataclass(frozen=True)
class Selection:
    """Which events go along, and which of their properties. Patterns are a shell's: ``users.messages.*``.

    :param include_events: event types; none means all.
    :param exclude_events: event types; they win.
    :param include_properties: names of Heap properties; none means all.
    :param exclude_properties: names of Heap properties; they win.
    :param sample: share of the people whose events go along, the same people in every run.
    :raises ConfigurationError: the share is none.
    """

    include_events: Sequence[str] = ()
    exclude_events: Sequence[str] = ()
    include_properties: Sequence[str] = ()
    exclude_properties: Sequence[str] = ()
    sample: float = 1.0

    def __post_init__(self) -> None:
        if not 0 < self.sample <= 1:
            raise ConfigurationError(f"sample must be above 0 and at most 1, not {self.sample}.")


@dataclass(frozen=True)
class MappingRules:
    """How Currents events become Heap events.

    :param identity_field: the field whose value is Heap's identity.
    :param event_prefix: put before every event's name, as ``braze-`` in Heap's own feed.
    :param event_names: names in place of the readable ones, by event type or by a custom event's name.
    :param pii: what becomes of personal data: ``drop``, ``hash`` or ``keep``.
    :param salt: for ``hash``.
    :param anonymous: what becomes of events without an identity: kept ``aside``, or sent by ``braze_id``.
    :raises ConfigurationError: hashes are wanted and there is no salt.
    """

    identity_field: str = "external_user_id"
    event_prefix: str = ""
    event_names: Mapping[str, str] = field(default_factory=dict)
    pii: PersonalData = "drop"
    salt: str | None = field(default=None, repr=False)
    anonymous: Anonymous = "aside"
    selection: Selection = Selection()

    def __post_init__(self) -> None:
        if self.pii == "hash" and not self.salt:
            raise ConfigurationError(
                "pii='hash' needs a salt: without one, hashes of phone numbers and addresses can be guessed. "
                "Fill in the extra pii_salt of the Heap connection. Nothing was sent."
            )


class HeapEvent(msgspec.Struct):
    """An event as Heap gets it.

    :param hour: of its time, in hours since 1970.
    :param cuts: names and values that were cut.
    :param body: JSON.
    """

    identity: str
    id: str
    hour: int
    cuts: int
    body: bytes
    finer_time: bool = False


@dataclass(slots=True)
class NotSent:
    """An event that is not sent.

    :param outcome: ``anonymous``, ``filtered`` or ``rejected``.
    :param reason: one of ``REASONS``, or what filtered it.
    :param body: as far as Heap would have got it, JSON; None where nothing is kept of it.
    """

    outcome: str
    reason: str
    body: bytes | None = None


class _Body(msgspec.Struct):
    """An event in Heap's own form (Heap: Track)."""

    event: str
    identity: str
    timestamp: str | None
    idempotency_key: str
    properties: dict[str, Value]


class _Moment(msgspec.Struct, frozen=True):
    """When an event was.

    :param text: as Heap gets it.
    :param hour: in hours since 1970.
    :param finer: whether it came in a finer unit than seconds.
    """

    text: str
    hour: int
    finer: bool


class _Plan(msgspec.Struct, frozen=True):
    """What the rules say of all events of one type and one layout.

    :param selected: whether they go along.
    :param name: in Heap; None where each has its own.
    :param treatments: of the fields that are not simply properties under their own names.
    :param dropped: the fields of the layout that no property is made of.
    :param to_look_at: its other fields that may not be taken as they are; None means all fields.
    """

    selected: bool
    name: str | None
    treatments: dict[str, PersonalData]
    dropped: tuple[str, ...] = ()
    to_look_at: tuple[str, ...] | None = None


class EventMapping:
    """The rules, made ready for many events."""

    def __init__(self, rules: MappingRules) -> None:
        self._rules = rules
        self._identity_field = rules.identity_field
        self._anonymous_by_braze_id = rules.anonymous == "braze_id"
        self._salt = (rules.salt or "").encode()
        selection = rules.selection
        self._type_selected = _selector(selection.include_events, selection.exclude_events)
        self._name_selected = _selector(selection.include_properties, selection.exclude_properties)
        self._selects_names = bool(selection.include_properties or selection.exclude_properties)
        self._sampled_below = int(selection.sample * 2**64)
        self._samples = self._sampled_below < 2**64
        self._encoder = msgspec.json.Encoder()
        self._plan = lru_cache(maxsize=512)(self._make_plan)

    def map(self, event: CurrentsEvent) -> HeapEvent | NotSent:
        """Map one event."""
        plan = self._plan(event.type, event.personal, event.layout)
        if not plan.selected:
            return NotSent("filtered", "event")
        fields = event.fields
        event_id = _text(fields.get("id"))
        moment = _moment(fields.get("time"))
        identity = _text(fields.get(self._identity_field))
        if not identity and self._anonymous_by_braze_id:
            identity = _text(fields.get(BRAZE_ID))
        if self._samples and identity and not self._is_sampled(identity):
            return NotSent("filtered", "sample")
        properties = self._properties(event, plan)
        body = self._encode(
            _Body(
                event=self._own_name(fields) if plan.name is None else plan.name,
                identity=identity,
                timestamp=moment.text if moment else None,
                idempotency_key=event_id if len(event_id) >= FEWEST_KEY else f"currents-{event_id}",
                properties=properties.values,
            )
        )
        problem = _problem(event.type, event_id, moment, identity)
        if problem or moment is None:
            return NotSent("anonymous" if problem == "anonymous" else "rejected", problem, body)
        return HeapEvent(identity, event_id, moment.hour, properties.cuts, body, moment.finer)

    def _is_sampled(self, identity: str) -> bool:
        digest = hashlib.blake2b(identity.encode(errors="surrogatepass"), digest_size=8).digest()
        return int.from_bytes(digest, "big") < self._sampled_below

    def _own_name(self, fields: dict[str, Any]) -> str:
        names, own = self._rules.event_names, _text(fields.get("name"))
        name = names.get(own) or names.get(CUSTOM_EVENT) or own or readable_name(CUSTOM_EVENT)
        return cut(f"{self._rules.event_prefix}{name}")

    def _type_name(self, event_type: str) -> str:
        name = self._rules.event_names.get(event_type) or readable_name(event_type)
        return cut(f"{self._rules.event_prefix}{name}")

    def _properties(self, event: CurrentsEvent, plan: _Plan) -> Properties:
        fields, treatments = event.fields, plan.treatments
        rest: Iterable[tuple[str, Any]] = fields.items()
        properties = Properties()
        values = properties.values
        if plan.to_look_at is not None:
            values.update(fields)
            for name in plan.dropped:
                values.pop(name, None)
            rest = []
            for name in plan.to_look_at:
                if name in values:
                    rest.append((name, values.pop(name)))
        for name, value in rest:
            if name in treatments:
                if treatments[name] != "drop" and value is not None:
                    self._put_special(properties, name, value, treatments[name])
            elif type(value) is str and len(value) <= SURELY_SHORT and len(name) <= SURELY_SHORT:
                values[name] = value  # nearly all of them: worth a way of their own
            else:
                properties.put(name, value)
        values["braze_event_type"] = event.type
        if self._selects_names:
            properties.values = {name: value for name, value in values.items() if self._name_selected(name)}
        return properties

    def _put_special(self, properties: Properties, name: str, value: Any, treatment: PersonalData) -> None:
        properties.put(
            HEAP_USER_ID if name == BRAZE_ID else name,
            hashed(as_text(value), self._salt) if treatment == "hash" else value,
        )

    def _make_plan(self, event_type: str, personal: frozenset[str], layout: Layout | None) -> _Plan:
        selected = self._type_selected(event_type)
        name = None if event_type == CUSTOM_EVENT else self._type_name(event_type)
        treatments = self._treatments(event_type, personal)
        # Where two fields get one name, the later one counts: then their order has to be kept.
        if layout is None or HEAP_USER_ID in layout.names:
            return _Plan(selected, name, treatments)
        dropped = tuple(name for name in layout.names if treatments.get(name) == "drop")
        to_look_at = (treatments.keys() | layout.not_texts).difference(dropped)
        return _Plan(
            selected, name, treatments, dropped, tuple(name for name in layout.names if name in to_look_at)
        )

    def _treatments(self, event_type: str, personal: frozenset[str]) -> dict[str, PersonalData]:
        """Return what becomes of the fields that are not simply properties under their own names."""
        treatments: dict[str, PersonalData] = {BRAZE_ID: "keep"}
        if self._rules.pii != "keep":
            treatments.update(dict.fromkeys(personal_fields(event_type, personal), self._rules.pii))
        # Heap has fields of its own for these.
        treatments.update(dict.fromkeys((*HEAP_FIELDS, self._rules.identity_field), "drop"))
        return treatments

    def _encode(self, body: _Body) -> bytes:
        try:
            return self._encoder.encode(body)
        except (UnicodeEncodeError, msgspec.MsgspecError):
            # A text cut in the middle of a character, as some clients do, has half of it left.
            return self._encoder.encode(_whole_characters(msgspec.structs.asdict(body)))


def _text(value: Any) -> str:
    """Return a value as text, without blanks around it."""
    return (value if type(value) is str else as_text(value)).strip()


def _problem(event_type: str, event_id: str, moment: _Moment | None, identity: str) -> str:
    if not event_id:
        return "no_id"
    if moment is None:
        return "no_time"
    if not event_type:
        return "no_event_type"
    if not identity:
        return "anonymous"
    return "" if cut(identity, MOST_IDENTITY) is identity else "identity_too_long"


def _moment(time: Any) -> _Moment | None:
    # The events of a file are of a few hundred seconds.
    return _known_moment(time) if type(time) is int else _moment_of(time)


def _moment_of(time: Any) -> _Moment | None:
    read = epoch_seconds(time)
    if read is None:
        return None
    seconds, finer = read
    whole = int(seconds)
    timespec = "seconds" if whole == seconds else "milliseconds"
    return _Moment((EPOCH + timedelta(seconds=seconds)).isoformat(timespec=timespec), whole // HOUR, finer)


_known_moment = lru_cache(maxsize=4096)(_moment_of)


def _selector(include: Sequence[str], exclude: Sequence[str]) -> Any:
    """Return a function that tells whether a name is selected."""
    included = re.compile("|".join(map(translate, include)) or ".*", re.DOTALL)
    excluded = re.compile("|".join(map(translate, exclude)) or r"(?!)", re.DOTALL)

    @lru_cache(maxsize=16_384)
    def selected(name: str) -> bool:
        return bool(included.match(name)) and not excluded.match(name)

    return selected


def _whole_characters(value: Any) -> Any:
    if isinstance(value, str):
        return value.encode("utf-16-le", errors="surrogatepass").decode("utf-16-le", errors="replace")
    if isinstance(value, dict):
        return {_whole_characters(name): _whole_characters(item) for name, item in value.items()}
    return value
