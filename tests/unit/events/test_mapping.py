"""One Currents event becomes one Heap event, the same from every form; or there is a reason why not."""

from __future__ import annotations

import functools
import gzip
import json
import math
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

import msgspec
import pytest
import requests
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from pyroaring import BitMap

from airflow_provider_heapbraze.clients.errors import ConfigurationError
from airflow_provider_heapbraze.events.currents import CurrentsEvent
from airflow_provider_heapbraze.events.mapping import (
    REASONS,
    EventMapping,
    HeapEvent,
    MappingRules,
    NotSent,
    Selection,
)
from airflow_provider_heapbraze.events.privacy import hashed
from airflow_provider_heapbraze.events.reading import read_events
from airflow_provider_heapbraze.sandbox.connections import HEAP_APP_ID
from tests.currents import samples

FACTS = Path(__file__).parents[3].parent / "shared" / "contracts" / "currents-events.json"
CUSTOM = "users.behaviors.CustomEvent"
OPEN = "users.messages.email.Open"
SECONDS = 1_764_000_000
MOMENT = "2025-11-24T16:00:00+00:00"
EVERYBODY = MappingRules(anonymous="braze_id")


def event(event_type=OPEN, personal=(), **fields):
    """Make an event of Ann; a field that is ... is not there."""
    whole = {"id": "event-0001", "time": SECONDS, "external_user_id": "ann", "user_id": "braze-ann", **fields}
    present = {name: value for name, value in whole.items() if value is not ...}
    return CurrentsEvent(event_type, present, frozenset(personal))


def mapped(one, **rules):
    return EventMapping(MappingRules(**rules)).map(one)


def body(one, **rules):
    """Return what Heap gets for an event."""
    found = mapped(one, **rules)
    assert isinstance(found, HeapEvent), found
    return json.loads(found.body)


def properties(one, **rules):
    return body(one, **rules)["properties"]


def read(file, event_type=""):
    return [one for _, one in read_events(file, event_type, BitMap())]


# From every form.


@functools.cache
def http_lines():
    lines = (samples.HERE / "http.jsonl").read_text(encoding="utf-8").splitlines()
    return [(json.loads(line)["event_type"].replace("users.agent", "agent"), line) for line in lines]


def files(event_type, folder):
    """Write the same three events in every form."""
    for codec in samples.codecs():
        samples.write_avro(
            folder / codec, samples.schema(event_type), samples.records(event_type), codec=codec
        )
        yield folder / codec
    flat = samples.flat_path(event_type).read_text(encoding="utf-8")
    (folder / "flat").write_text(flat, encoding="utf-8")
    yield folder / "flat"
    (folder / "flat.gz").write_bytes(gzip.compress(flat.encode()))
    yield folder / "flat.gz"
    records = [json.loads(line) for line in flat.splitlines()]
    (folder / "pretty").write_text(json.dumps({"events": records}, indent=1))
    yield folder / "pretty"


def http_file(event_type, folder):
    lines = [line for its_type, line in http_lines() if its_type == event_type]
    if not lines:
        return None
    (folder / "http").write_text("\n".join(lines), encoding="utf-8")
    return folder / "http"


RULES = {
    "drop": EVERYBODY,
    "hash": MappingRules(anonymous="braze_id", pii="hash", salt="salt"),
    "keep": MappingRules(anonymous="braze_id", pii="keep"),
}


@pytest.mark.parametrize("pii", RULES)
@pytest.mark.parametrize("event_type", samples.TYPES)
def test_the_same_from_every_form(event_type, pii, tmp_path):
    mapping = EventMapping(RULES[pii])
    first, *others = [
        [json.loads(mapping.map(one).body) for one in read(file, event_type)]
        for file in files(event_type, tmp_path)
    ]
    assert len(first) == 3
    for other in others:
        assert other == first
    file = http_file(event_type, tmp_path)
    for heap, stored in zip([*read(file)] if file else [], first, strict=bool(file)):
        pushed = json.loads(mapping.map(heap).body)
        found = pushed.pop("properties")
        assert pushed == {name: value for name, value in stored.items() if name != "properties"}
        assert found.items() <= stored["properties"].items()  # the HTTP form lacks some fields
        assert found["braze_event_type"] == event_type


def test_the_sandbox_accepts_every_type_in_every_form(heapbraze_sandbox, tmp_path):
    """Heap holds each event once: every form gives it the same key."""
    mapping, stored, others = EventMapping(RULES["keep"]), [], []
    for event_type in samples.TYPES:
        avro, *more = files(event_type, tmp_path)
        stored += read(avro)
        others += [one for file in more for one in read(file, event_type)]
        if http_file(event_type, tmp_path):
            others += read(tmp_path / "http")
    for events in (stored, *(others[first : first + 1000] for first in range(0, len(others), 1000))):
        found = [mapping.map(one) for one in events]
        assert all(isinstance(one, HeapEvent) for one in found)
        whole = {"app_id": HEAP_APP_ID, "events": [json.loads(one.body) for one in found]}
        answer = requests.post(f"{heapbraze_sandbox.url}/api/track", json=whole, timeout=30)
        assert answer.status_code == 204, answer.text
    kept = heapbraze_sandbox.heap_events()
    assert len(kept) == 150
    assert heapbraze_sandbox.state()["heap"]["duplicates"] == len(others)


def test_an_event_in_full():
    one = event(
        CUSTOM,
        name="Order Placed",
        app_id="app",
        platform=None,
        properties={"plan": "gold", "total": 9.99, "first": True, "tags": ["a", "b"], "gone": None},
    )
    found = mapped(one)
    assert (found.identity, found.id, found.hour, found.cuts) == ("ann", "event-0001", SECONDS // 3600, 0)
    assert not found.finer_time
    assert json.loads(found.body) == {
        "event": "Order Placed",
        "identity": "ann",
        "timestamp": MOMENT,
        "idempotency_key": "event-0001",
        "properties": {
            "braze_event_type": CUSTOM,
            "name": "Order Placed",
            "app_id": "app",
            "properties.plan": "gold",
            "properties.total": 9.99,
            "properties.first": "true",
            "properties.tags": "a||b",
        },
    }


def test_the_event_stays_as_it_is():
    """It is mapped again where its file is read again."""
    one = event(CUSTOM, properties={"a": {"b": 1}})
    before = json.dumps(one.fields)
    assert mapped(one) == mapped(one)
    assert json.dumps(one.fields) == before


# Personal data, against the facts.


@functools.cache
def facts():
    return json.loads(FACTS.read_text(encoding="utf-8"))["events"] if FACTS.exists() else {}


def heap_form(name, value):
    """Return the properties that a field becomes, told without the mapping."""
    if isinstance(value, bool):
        return {name: str(value).lower()}
    if isinstance(value, list):
        return {name: "||".join(value)}
    if name == "properties":
        return dict(leaves(name, json.loads(value)))
    return {name: samples.short_float(value) if isinstance(value, float) else value}


def leaves(name, value):
    if isinstance(value, dict):
        for key, item in value.items():
            yield from leaves(f"{name}.{key}", item)
    elif value is not None:
        plain = "||".join(map(str, value)) if isinstance(value, list) else value
        yield name, str(plain).lower() if isinstance(plain, bool) else plain


def texts_of(value):
    """Return every text in a value, also in JSON in a text."""
    if isinstance(value, dict):
        return {text for pair in value.items() for item in pair for text in texts_of(item)}
    if isinstance(value, list):
        return {text for item in value for text in texts_of(item)}
    return {str(value)}


@pytest.mark.skipif(not FACTS.exists(), reason="the facts are not part of this repository")
@pytest.mark.parametrize("event_type", samples.TYPES)
def test_personal_data_stay_here_and_all_else_goes(event_type, tmp_path):
    fact = facts()[event_type]["avro"]
    personal = {name for name, field in fact.items() if field.get("pii")}
    forms = [*files(event_type, tmp_path), http_file(event_type, tmp_path)]
    for file in filter(None, forms):
        for record, one in zip(samples.records(event_type), read(file, event_type), strict=True):
            heap = body(one, anonymous="braze_id")
            identity = heap.pop("identity")
            assert identity == (record.get("external_user_id") or record.get("user_id"))
            everything = " ".join(texts_of(heap))
            for name in personal:
                if record[name] is not None:
                    assert record[name] not in everything
                    assert name not in heap["properties"]
            assert "private" not in everything
            if file.name == "http":
                continue
            wanted = {"braze_event_type": event_type}
            for name, value in record.items():
                if value is not None and name not in {*personal, "id", "time"}:
                    wanted |= heap_form(name, value)
            assert heap["properties"] == wanted


@pytest.mark.parametrize("event_type", samples.TYPES)
def test_all_personal_data_may_be_kept(event_type):
    for record, one in zip(samples.records(event_type), read(samples.avro_path(event_type)), strict=True):
        found = body(one, anonymous="braze_id", pii="keep")["properties"]
        for name in samples.pii_fields(event_type) - {"external_user_id"}:
            shown = "braze_user_id" if name == "user_id" else name
            assert found.get(shown) == record[name]


@pytest.mark.parametrize("event_type", samples.TYPES)
def test_all_personal_data_may_be_hashed(event_type):
    for record, one in zip(samples.records(event_type), read(samples.avro_path(event_type)), strict=True):
        found = body(one, anonymous="braze_id", pii="hash", salt="salt")
        values = found["properties"]
        for name in samples.pii_fields(event_type) - {"external_user_id"}:
            shown = "braze_user_id" if name == "user_id" else name
            value = None if record[name] is None else hashed(record[name], b"salt")
            assert values.get(shown) == value
        assert "private" not in json.dumps(values)


# Identity.


def test_the_chosen_field_is_the_identity():
    one = event(device_id="device-1", email_address="ann@example.com")
    assert body(one)["identity"] == "ann"
    assert body(one, identity_field="device_id")["identity"] == "device-1"
    assert body(one, identity_field="email_address")["identity"] == "ann@example.com"
    assert body(one, identity_field="user_id")["identity"] == "braze-ann"


@pytest.mark.parametrize("pii", ["drop", "hash", "keep"])
def test_the_identity_is_no_property_too(pii):
    for field, value in (("device_id", "device-1"), ("email_address", "ann@example.com"), ("user_id", "b")):
        one = event(**{field: value})
        found = properties(one, identity_field=field, pii=pii, salt="salt")
        assert value not in found.values()
        assert field not in found
        assert "braze_user_id" not in found or field != "user_id"


def test_who_is_not_the_identity_any_more_is_personal():
    one = event(device_id="device-1")
    assert "external_user_id" not in properties(one, identity_field="device_id")
    kept = properties(one, identity_field="device_id", pii="keep")
    assert (kept["external_user_id"], kept["braze_user_id"]) == ("ann", "braze-ann")
    hashes = properties(one, identity_field="device_id", pii="hash", salt="salt")
    assert hashes["external_user_id"] == hashed("ann", b"salt")


@pytest.mark.parametrize(
    ("value", "identity"),
    [
        ("ann", "ann"),
        ("Ann", "Ann"),  # case makes another person
        ("  ann\n", "ann"),
        (12345, "12345"),
        (0, "0"),
        (2**60, "1152921504606846976"),
        ("0", "0"),
        ("東京", "東京"),
        ("🎉", "🎉"),
        ("x" * 255, "x" * 255),
        ("🎉" * 127 + "x", "🎉" * 127 + "x"),  # 255 in UTF-16
        (" " * 300 + "ann", "ann"),
    ],
)
def test_identities(value, identity):
    assert body(event(external_user_id=value))["identity"] == identity


@pytest.mark.parametrize("value", ["x" * 256, "🎉" * 128, "🎉" * 127 + "xx", "x" * 100_000])
def test_an_identity_that_is_too_long_is_not_cut(value):
    """Cut, it would be somebody else's."""
    found = mapped(event(external_user_id=value))
    assert (found.outcome, found.reason) == ("rejected", "identity_too_long")
    assert json.loads(found.body)["identity"] == value


@pytest.mark.parametrize("blank", [..., None, "", "  ", "\t\n", "\u00a0"])
def test_nobody(blank):
    one = event(external_user_id=blank)
    found = mapped(one)
    assert (found.outcome, found.reason) == ("anonymous", "anonymous")
    kept = json.loads(found.body)
    assert kept["identity"] == ""
    assert (kept["event"], kept["timestamp"], kept["idempotency_key"]) == ("Email Open", MOMENT, "event-0001")
    assert "braze-ann" not in found.body.decode()
    assert body(one, anonymous="braze_id")["identity"] == "braze-ann"
    for user_id in (..., None, " "):
        nobody = event(external_user_id=blank, user_id=user_id)
        assert mapped(nobody, anonymous="braze_id").outcome == "anonymous"


def test_brazes_id_is_for_those_without_an_identity_only():
    found = body(event(), anonymous="braze_id")
    assert found["identity"] == "ann"
    assert "braze-ann" not in json.dumps(found)


@pytest.mark.parametrize("pii", ["hash", "keep"])
def test_brazes_id_as_identity_and_as_property(pii):
    """Where it is the identity anyway, it may be a property, too; as the rules say."""
    one = event(external_user_id=None)
    value = properties(one, anonymous="braze_id", pii=pii, salt="salt")["braze_user_id"]
    assert value == ("braze-ann" if pii == "keep" else hashed("braze-ann", b"salt"))


# Names.


def test_names():
    assert body(event())["event"] == "Email Open"
    assert body(event("users.messages.pigeon.Land"))["event"] == "Pigeon Land"
    assert body(event(CUSTOM, name="Order Placed"))["event"] == "Order Placed"
    assert body(event(CUSTOM, name="  Order Placed "))["event"] == "Order Placed"
    assert body(event(CUSTOM, name=42))["event"] == "42"
    for nothing in (..., None, "", "  "):
        assert body(event(CUSTOM, name=nothing))["event"] == "Custom Event"
    assert body(event(OPEN, name="Order Placed"))["event"] == "Email Open", (
        "its own name is for custom events"
    )


def test_the_name_of_a_custom_event_is_a_property_too():
    assert properties(event(CUSTOM, name="Order Placed"))["name"] == "Order Placed"


def test_names_in_place_of_them():
    names = {OPEN: "Opened", "Order Placed": "Bought", CUSTOM: "Something", "Email Open": "never"}
    assert body(event(), event_names=names)["event"] == "Opened"
    assert body(event(CUSTOM, name="Order Placed"), event_names=names)["event"] == "Bought"
    assert body(event(CUSTOM, name="Trial Started"), event_names=names)["event"] == "Something"
    assert body(event("users.messages.sms.Send"), event_names=names)["event"] == "SMS Send"
    assert body(event(), event_names={OPEN: ""})["event"] == "Email Open"


def test_the_prefix():
    for one, name in ((event(), "braze-Email Open"), (event(CUSTOM, name="Order"), "braze-Order")):
        assert body(one, event_prefix="braze-")["event"] == name
    assert body(event(), event_prefix="b-", event_names={OPEN: "Opened"})["event"] == "b-Opened"


def test_a_name_that_is_too_long_is_cut():
    assert body(event(CUSTOM, name="n" * 2000))["event"] == "n" * 1023
    assert body(event(CUSTOM, name="n" * 1020), event_prefix="braze-")["event"] == "braze-" + "n" * 1017
    assert body(event(CUSTOM, name="🎉" * 600))["event"] == "🎉" * 511
    assert body(event(event_type="users." + "N" * 3000))["event"] == "N" * 1023


# Key and time.


@pytest.mark.parametrize(
    ("event_id", "key"),
    [
        ("event-0001", "event-0001"),
        ("12345678", "12345678"),
        ("1234567", "currents-1234567"),
        ("1", "currents-1"),
        (17, "currents-17"),
        (123456789, "123456789"),
        (" event-0001 ", "event-0001"),
    ],
)
def test_keys(event_id, key):
    found = mapped(event(id=event_id))
    assert json.loads(found.body)["idempotency_key"] == key
    assert found.id == str(event_id).strip()


@pytest.mark.parametrize(
    ("time", "timestamp", "finer"),
    [
        (SECONDS, MOMENT, False),
        (str(SECONDS), MOMENT, False),
        (float(SECONDS), MOMENT, False),
        (SECONDS * 10**3, MOMENT, True),
        (SECONDS * 10**6, MOMENT, True),
        (SECONDS * 10**9, MOMENT, True),
        (SECONDS * 10**3 + 250, "2025-11-24T16:00:00.250+00:00", True),
        (SECONDS * 10**3 + 1, "2025-11-24T16:00:00.001+00:00", True),
        (SECONDS * 10**3 + 999, "2025-11-24T16:00:00.999+00:00", True),
        (SECONDS * 10**6 + 123_456, "2025-11-24T16:00:00.123+00:00", True),
        (SECONDS + 0.5, "2025-11-24T16:00:00.500+00:00", False),
        (1, "1970-01-01T00:00:01+00:00", False),
        (0.5, "1970-01-01T00:00:00.500+00:00", False),
        (99_999_999_999, "5138-11-16T09:46:39+00:00", False),
    ],
)
def test_times(time, timestamp, finer):
    found = mapped(event(time=time))
    assert isinstance(found, HeapEvent)
    said = json.loads(found.body)["timestamp"]
    assert said == timestamp
    assert found.hour == int(datetime.fromisoformat(said).timestamp()) // 3600
    assert found.finer_time == finer


@pytest.mark.parametrize("millisecond", range(0, 1000, 7))
def test_milliseconds_are_kept(millisecond):
    said = body(event(time=SECONDS * 1000 + millisecond))["timestamp"]
    assert datetime.fromisoformat(said).microsecond == millisecond * 1000


def test_the_time_may_be_of_avros_own_kind(tmp_path):
    """``time`` as a timestamp in milliseconds: no event may be lost for it."""
    schema = samples.schema(CUSTOM)
    for field in schema["fields"]:
        if field["name"] == "time":
            field["type"] = {"type": "long", "logicalType": "timestamp-millis"}
    moment = datetime.fromtimestamp(SECONDS, UTC)
    samples.write_avro(tmp_path / "f", schema, [{**one, "time": moment} for one in samples.numbered(1)])
    (one,) = read(tmp_path / "f")
    assert body(one)["timestamp"] == MOMENT


def test_logical_types_and_nested_fields(tmp_path):
    schema = samples.schema(CUSTOM)
    place = {"type": "record", "name": "Place", "fields": [{"name": "city", "type": "string"}]}
    schema["fields"] += [
        {"name": "opened_at", "type": {"type": "long", "logicalType": "timestamp-millis"}},
        {"name": "total", "type": {"type": "bytes", "logicalType": "decimal", "precision": 9, "scale": 2}},
        {"name": "place", "type": place},
        {"name": "stops", "type": {"type": "array", "items": "Place"}},
        {"name": "labels", "type": {"type": "map", "values": "string"}},
    ]
    new = {
        "opened_at": datetime.fromtimestamp(SECONDS, UTC),
        "total": Decimal("12.30"),
        "place": {"city": "Zürich"},
        "stops": [{"city": "Bern"}, {"city": "Genf"}],
        "labels": {"a": "b"},
    }
    samples.write_avro(tmp_path / "f", schema, [{**one, **new} for one in samples.numbered(1)])
    (one,) = read(tmp_path / "f")
    assert properties(one).items() >= {
        ("opened_at", MOMENT),
        ("total", "12.30"),
        ("place.city", "Zürich"),
        ("stops", '{"city":"Bern"}||{"city":"Genf"}'),
        ("labels.a", "b"),
    }


# What is not sent.


@pytest.mark.parametrize(
    ("changes", "outcome", "reason"),
    [
        ({"id": ...}, "rejected", "no_id"),
        ({"id": None}, "rejected", "no_id"),
        ({"id": " "}, "rejected", "no_id"),
        ({"time": ...}, "rejected", "no_time"),
        ({"time": None}, "rejected", "no_time"),
        ({"time": 0}, "rejected", "no_time"),
        ({"time": -SECONDS}, "rejected", "no_time"),
        ({"time": True}, "rejected", "no_time"),
        ({"time": "soon"}, "rejected", "no_time"),
        ({"time": math.nan}, "rejected", "no_time"),
        ({"time": 1e300}, "rejected", "no_time"),
        ({"event_type": ""}, "rejected", "no_event_type"),
        ({"external_user_id": "x" * 256}, "rejected", "identity_too_long"),
        ({"external_user_id": ""}, "anonymous", "anonymous"),
        # Of several reasons, one that nobody can mend goes first.
        ({"id": "", "external_user_id": ""}, "rejected", "no_id"),
        ({"time": 0, "external_user_id": ""}, "rejected", "no_time"),
        ({"event_type": "", "external_user_id": ""}, "rejected", "no_event_type"),
    ],
)
def test_reasons(changes, outcome, reason):
    found = mapped(event(**changes, subject="Hello"))
    assert isinstance(found, NotSent)
    assert (found.outcome, found.reason) == (outcome, reason)
    assert reason in REASONS
    kept = json.loads(found.body)
    assert kept["properties"]["subject"] == "Hello"
    assert "braze-ann" not in found.body.decode(), "what is kept of it is what Heap would have got"


@pytest.mark.parametrize("changes", [{"time": 10**400}, {"time": "9" * 400}])
def test_a_number_that_is_far_too_large_does_not_stop_the_export(changes):
    assert isinstance(mapped(event(**changes)), (HeapEvent, NotSent))


# Personal data.

PERSONAL = {"email_address": "ann@example.com", "phone_number": "+15550100", "message_extras": '{"a": 1}'}


def test_personal_data_are_dropped_hashed_or_kept():
    one = event(**PERSONAL, subject="Hello")
    assert properties(one) == {"braze_event_type": OPEN, "subject": "Hello"}
    assert properties(one, pii="keep") == {
        "braze_event_type": OPEN,
        "subject": "Hello",
        "braze_user_id": "braze-ann",
        **PERSONAL,
    }
    assert properties(one, pii="hash", salt="pepper") == {
        "braze_event_type": OPEN,
        "subject": "Hello",
        "braze_user_id": hashed("braze-ann", b"pepper"),
        **{name: hashed(value, b"pepper") for name, value in PERSONAL.items()},
    }


def test_hashes_are_of_the_salt():
    one = event(**PERSONAL)
    first = properties(one, pii="hash", salt="one")
    assert properties(one, pii="hash", salt="one") == first
    other = properties(one, pii="hash", salt="another")
    assert all(first[name] != other[name] for name in PERSONAL)
    assert len({first[name] for name in PERSONAL}) == 3
    assert properties(one, pii="hash", salt="gewürzt")["email_address"] == hashed(
        "ann@example.com", "gewürzt".encode()
    )


@pytest.mark.parametrize("salt", [None, ""])
def test_hashes_need_a_salt(salt):
    with pytest.raises(ConfigurationError) as caught:
        MappingRules(pii="hash", salt=salt)
    assert str(caught.value) == (
        "pii='hash' needs a salt: without one, hashes of phone numbers and addresses can be guessed. "
        "Fill in the extra pii_salt of the Heap connection. Nothing was sent."
    )
    for pii in ("drop", "keep"):
        MappingRules(pii=pii, salt=salt)


def test_the_salt_is_not_shown():
    assert "secret" not in repr(MappingRules(pii="hash", salt="secret"))
    assert "secret" not in str(MappingRules(pii="hash", salt="secret"))


def test_a_new_field_that_the_schema_marks_is_personal():
    one = event(shoe_size=43, personal=["shoe_size"])
    assert "shoe_size" not in properties(one)
    assert properties(one, pii="keep")["shoe_size"] == 43
    assert properties(one, pii="hash", salt="salt")["shoe_size"] == hashed("43", b"salt")
    assert properties(event(shoe_size=43))["shoe_size"] == 43, "unmarked, it is not"


def test_values_of_every_kind_are_hashed():
    one = event(
        personal=["a", "b", "c", "d", "e"], a=5, b=["x", "y"], c={"d": 1}, d=None, e=True, country="DE"
    )
    assert properties(one, pii="hash", salt="s") == {
        "braze_event_type": OPEN,
        "braze_user_id": hashed("braze-ann", b"s"),
        "a": hashed("5", b"s"),
        "b": hashed("x||y", b"s"),
        "c": hashed('{"d":1}', b"s"),
        "e": hashed("true", b"s"),
        "country": hashed("DE", b"s"),
    }


def test_the_first_session_may_tell_the_country():
    """Braze marks it as personal in other types."""
    assert properties(event("users.behaviors.app.FirstSession", country="DE"))["country"] == "DE"
    assert "country" not in properties(event("users.behaviors.app.SessionStart", country="DE"))


@pytest.mark.parametrize("pii", ["drop", "hash", "keep"])
def test_heaps_own_fields_are_no_properties(pii):
    found = properties(event(personal=["id", "time"]), pii=pii, salt="salt")
    assert not {"id", "time", "external_user_id", "user_id"} & found.keys()


# Selection.


@pytest.mark.parametrize(
    ("include", "exclude", "sent"),
    [
        ((), (), True),
        (["users.messages.email.*"], (), True),
        (["users.messages.sms.*"], (), False),
        (["users.messages.sms.*", "*.Open"], (), True),
        ([OPEN], (), True),
        (["users.messages.email.Ope"], (), False),
        (["users.messages.email.Open2"], (), False),
        ((), ["users.messages.*"], False),
        ((), ["users.canvas.*"], True),
        (["users.*"], ["*.email.*"], False),
        (["*"], ["*"], False),
        (["users.messages.email.[NO]pen"], (), True),
        (["users.messages.email.Ope?"], (), True),
        (["users?messages?email?Open"], (), True),
        (["users.messages.email.open"], (), False),
        (["users.messages.emai(l.Open"], (), False),
    ],
)
def test_events_are_chosen_by_patterns(include, exclude, sent):
    selection = Selection(include_events=include, exclude_events=exclude)
    found = mapped(event(), selection=selection)
    assert isinstance(found, HeapEvent) == sent
    if not sent:
        assert found == NotSent("filtered", "event", None), "nothing is kept of what nobody wants"


def test_what_is_filtered_is_not_rejected():
    """An event that nobody wants is no fault, whatever is wrong with it."""
    selection = Selection(include_events=["users.canvas.*"])
    assert mapped(event(id="", time=0), selection=selection).outcome == "filtered"


@pytest.mark.parametrize(
    ("include", "exclude", "names"),
    [
        ((), (), {"braze_event_type", "name", "platform", "properties.plan", "properties.total.net"}),
        (["properties.*"], (), {"properties.plan", "properties.total.net"}),
        ((), ["properties.*"], {"braze_event_type", "name", "platform"}),
        (["properties.*", "platform"], ["*.plan"], {"platform", "properties.total.net"}),
        (["nothing"], (), set()),
        ((), ["*"], set()),
    ],
)
def test_properties_are_chosen_by_patterns(include, exclude, names):
    one = event(CUSTOM, name="Order", platform="ios", properties={"plan": "gold", "total": {"net": 5}})
    selection = Selection(include_properties=include, exclude_properties=exclude)
    found = body(one, selection=selection)
    assert found["properties"].keys() == names
    assert (found["event"], found["identity"]) == ("Order", "ann")


def test_what_is_left_out_does_not_choose_the_person():
    selection = Selection(exclude_properties=["external_user_id", "name", "time", "id"])
    found = body(event(CUSTOM, name="Order"), selection=selection)
    assert (found["event"], found["identity"], found["timestamp"]) == ("Order", "ann", MOMENT)


def test_a_pattern_does_not_let_personal_data_through():
    selection = Selection(include_properties=["*"])
    assert "email_address" not in properties(event(**PERSONAL), selection=selection)


def sample(share, people, **fields):
    mapping = EventMapping(MappingRules(selection=Selection(sample=share)))
    found = {person: mapping.map(event(external_user_id=person, **fields)) for person in people}
    assert all(isinstance(one, HeapEvent) or one == NotSent("filtered", "sample") for one in found.values())
    return {person for person, one in found.items() if isinstance(one, HeapEvent)}


PEOPLE = [f"person-{number}" for number in range(4000)]


@pytest.mark.parametrize("share", [0.01, 0.1, 0.5, 0.9])
def test_a_sample_is_about_its_share(share):
    assert len(sample(share, PEOPLE)) == pytest.approx(
        share * 4000, abs=4 * (4000 * share * (1 - share)) ** 0.5
    )


def test_a_sample_is_of_people():
    """The same people in every run and in every type of event; a larger share has them all, and more."""
    tenth = sample(0.1, PEOPLE)
    assert sample(0.1, PEOPLE) == tenth
    assert sample(0.1, PEOPLE, event_type=CUSTOM, id="another-1", time=5) == tenth
    assert sample(0.2, PEOPLE) > tenth
    assert sample(1.0, PEOPLE) == set(PEOPLE)
    assert sorted(tenth)[:3] == ["person-1005", "person-1009", "person-1048"]


def test_nobody_is_in_no_sample():
    """Events without an identity are anonymous, whatever the share."""
    rules = MappingRules(selection=Selection(sample=1e-9))
    assert EventMapping(rules).map(event(external_user_id="")).outcome == "anonymous"


@pytest.mark.parametrize("share", [0, -0.1, 1.1, 100, math.nan])
def test_a_share_is_a_share(share):
    with pytest.raises(ConfigurationError) as caught:
        Selection(sample=share)
    assert str(caught.value) == f"sample must be above 0 and at most 1, not {share}."


# What Heap takes.


def test_cuts_are_counted():
    one = event(CUSTOM, note="x" * 1024, properties={"k" * 2000: "v" * 2000, "tags": ["t" * 600] * 2})
    found = mapped(one)
    assert found.cuts == 4
    assert within_bounds(json.loads(found.body))
    assert mapped(event(CUSTOM, note="x" * 1023)).cuts == 0


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("x" * 511, "x" * 511),
        ("x" * 1023, "x" * 1023),
        ("x" * 1024, "x" * 1023),
        ("🎉" * 512, "🎉" * 511),
    ],
)
def test_plain_fields_are_cut_like_nested_ones(text, kept):
    found = properties(event(CUSTOM, note=text, properties={"note": text}, **{text: "value"}))
    assert found["note"] == found["properties.note"] == kept
    assert found[kept] == "value"


def units(text):
    return len(text.encode("utf-16-le")) // 2  # a lone surrogate would fail here


def within_bounds(heap):
    """Tell whether an event satisfies Heap's bounds (Heap: Track)."""
    assert heap.keys() == {"event", "identity", "timestamp", "idempotency_key", "properties"}
    assert 0 < units(heap["event"]) <= 1024
    assert 0 < units(heap["identity"]) <= 255
    for name, value in heap["properties"].items():
        assert units(name) < 1024
        assert type(value) in {str, int, float}
        if isinstance(value, str):
            assert units(value) < 1024
        else:
            assert math.isfinite(value)
            assert isinstance(value, float) or abs(value) < 2**53
    return True


def no_constants(name):
    raise AssertionError(f"{name} is no JSON")


ANY_TEXT = st.text(st.characters()) | st.text(st.characters(exclude_categories=()), max_size=5)
LONG_TEXT = st.builds(
    lambda text, times: text * times, st.text(min_size=1, max_size=3), st.integers(300, 1100)
)
ANY_NUMBER = st.integers() | st.integers(10**15, 10**40) | st.floats()
ANY_JSON = st.recursive(
    st.none() | st.booleans() | ANY_NUMBER | ANY_TEXT | LONG_TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(ANY_TEXT | LONG_TEXT, inner, max_size=4),
    max_leaves=12,
)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.dictionaries(ANY_TEXT | LONG_TEXT, ANY_JSON, max_size=6))
@example({"half": "\ud83d"})
@example({"\udc00": {"\ud83d": 1}})
@example({"items": [{"name": "\ud83d"}]})
@example({"n": 10**4000, "m": -(10**30), "nan": math.nan})
def test_any_custom_properties_are_within_heaps_bounds(custom):
    found = mapped(event(CUSTOM, name="Order", properties=custom))
    assert isinstance(found, HeapEvent)
    assert within_bounds(json.loads(found.body, parse_constant=no_constants))


@settings(max_examples=60, deadline=None)
@given(st.dictionaries(st.text(max_size=8), ANY_JSON, max_size=4), st.sampled_from(["drop", "hash", "keep"]))
def test_any_fields_give_an_event_or_a_reason(fields, pii):
    one = CurrentsEvent(CUSTOM, {"id": "event-0001", "time": 5, "external_user_id": "ann", **fields})
    found = mapped(one, pii=pii, salt="salt")
    if isinstance(found, HeapEvent):
        assert within_bounds(json.loads(found.body, parse_constant=no_constants))
    else:
        assert found.reason in REASONS


KNOWN = ["id", "time", "external_user_id", "user_id", "name", "email_address", "properties", "event_type"]


@settings(max_examples=60, deadline=None)
@given(st.fixed_dictionaries({}, optional=dict.fromkeys(KNOWN, ANY_JSON)))
def test_any_values_of_known_fields_give_an_event_or_a_reason(fields):
    found = mapped(CurrentsEvent(CUSTOM, fields), pii="hash", salt="salt", anonymous="braze_id")
    if isinstance(found, HeapEvent):
        assert within_bounds(json.loads(found.body, parse_constant=no_constants))
    else:
        assert found.reason in REASONS


# With what a schema says beforehand, and without.

AVRO_VALUES = {
    "string": st.text(max_size=5)
    | st.sampled_from(["x" * 511, "x" * 512, "é" * 300, "😀" * 600, '{"a": {"b": [1, null]}, "c.d": "e"}']),
    "int": st.integers(-(2**31), 2**31 - 1),
    "long": st.integers(-(2**63), 2**63 - 1),
    "boolean": st.booleans(),
    "float": st.floats(width=32),
    "double": st.floats(),
}
MORE_FIELDS = ("braze_user_id", "properties", "custom_attributes", "event_type", "new", "n" * 1100)
SURE = {"id": "event-0001", "time": SECONDS, "external_user_id": "ann"}


def avro_values(avro_type):
    if isinstance(avro_type, list):
        return st.one_of(st.none() if one == "null" else avro_values(one) for one in avro_type)
    if isinstance(avro_type, dict):
        return st.lists(avro_values(avro_type["items"]), max_size=2)
    return AVRO_VALUES[avro_type]


@st.composite
def schemas_with_records(draw):
    """Make the schema of any event type, with some more fields anywhere in it, and records of it."""
    schema = samples.schema(draw(st.sampled_from(samples.TYPES)))
    fields = schema["fields"]
    for name in draw(st.lists(st.sampled_from(MORE_FIELDS), unique=True)):
        if name not in {field["name"] for field in fields}:
            kind = draw(st.sampled_from(sorted(AVRO_VALUES)))
            fields.insert(draw(st.integers(0, len(fields))), {"name": name, "type": ["null", kind]})
    values = st.fixed_dictionaries({field["name"]: avro_values(field["type"]) for field in fields})
    likely = values.map(lambda record: {**record, **{name: SURE[name] for name in SURE if name in record}})
    return schema, draw(st.lists(likely | values, min_size=1, max_size=5))


@pytest.mark.parametrize(
    "rules",
    [
        *RULES.values(),
        MappingRules(identity_field="device_id"),
        MappingRules(pii="hash", salt="salt", selection=Selection(exclude_properties=["*_id"])),
    ],
)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(made=schemas_with_records())
def test_the_same_with_a_layout_and_without(rules, made, tmp_path):
    check_the_same_without_a_layout(EventMapping(rules), *made, tmp_path / "made")


@pytest.mark.parametrize(
    "names",
    [
        ("user_id", "braze_user_id"),
        ("braze_user_id", "user_id"),
        ("properties.a", "properties"),
        ("properties", "properties.a"),
        ("n" * 1100, "user_id"),
    ],
)
def test_the_same_where_names_are_odd(names, tmp_path):
    """Two fields may come under one name: then the later one counts."""
    fields = [{"name": name, "type": "string"} for name in ("id", "time", "external_user_id", *names)]
    schema = {"type": "record", "name": "Odd", "fields": fields}
    record = {**{name: str(len(name)) for name in names}, **SURE, "time": str(SECONDS)}
    record |= {"properties": '{"a": "nested"}'} if "properties" in names else {}
    check_the_same_without_a_layout(EventMapping(RULES["keep"]), schema, [record], tmp_path / "odd")


def check_the_same_without_a_layout(mapping, schema, records, file):
    samples.write_avro(file, schema, records)
    for one in read(file, OPEN):
        known, unknown = mapping.map(one), mapping.map(msgspec.structs.replace(one, layout=None))
        assert type(known) is type(unknown)
        assert apart_from_order(known) == apart_from_order(unknown)


def apart_from_order(found):
    """Return what became of an event; the order of its properties may be any."""
    whole = (
        msgspec.structs.asdict(found)
        if isinstance(found, HeapEvent)
        else {"outcome": found.outcome, "reason": found.reason, "body": found.body}
    )
    return {**whole, "body": found.body and json.loads(found.body)}


def test_what_a_schema_says_beforehand(tmp_path):
    """Layouts are the same in all files of a schema, and only of records whose texts are short."""
    schema = samples.schema(OPEN)
    (first, *_), records = read(samples.avro_path(OPEN)), samples.records(OPEN)
    records[1]["user_agent"] = "x" * 512
    samples.write_avro(tmp_path / "other", schema, records)
    short, long, other = read(tmp_path / "other")
    assert first.layout is short.layout is other.layout
    assert first.layout.names == tuple(field["name"] for field in schema["fields"])
    assert first.layout.not_texts == {"time", "is_amp"}
    assert long.layout is None


@pytest.mark.parametrize("depth", [100, 300, 450, 900])
def test_deep_lists_in_a_file(depth, tmp_path):
    """What can be read can be mapped, or is no JSON; it does not stop the export."""
    custom = '{"a": ' + "[" * depth + "]" * depth + "}"
    (tmp_path / "f").write_text(
        f'{{"id": "event-0001", "time": 5, "external_user_id": "a", "properties": {custom}}}'
    )
    (one,) = read(tmp_path / "f", CUSTOM)
    assert within_bounds(body(one))
