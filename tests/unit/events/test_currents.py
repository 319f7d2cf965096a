"""An event has one shape, whichever form it came in."""

from __future__ import annotations

import io
import json
import math
from datetime import UTC, datetime

import pytest
from pyroaring import BitMap

from airflow_provider_heapbraze.events.currents import (
    CurrentsEvent,
    epoch_seconds,
    from_http,
    from_record,
    normal_type,
    parse,
    without_unions_of,
)
from airflow_provider_heapbraze.events.json_forms import read_json

HTTP = {
    "event_type": "users.behaviors.Purchase",
    "id": "event-1",
    "time": 1_764_000_000,
    "user": {"user_id": "braze-1", "external_user_id": "ann", "timezone": "Europe/Berlin"},
    "properties": {"product_id": "mug", "price": 9.99, "purchase_properties": {"plan": "gold", "list": [1]}},
}
FLAT = {
    "id": "event-1",
    "time": 1_764_000_000,
    "user_id": "braze-1",
    "external_user_id": "ann",
    "timezone": "Europe/Berlin",
    "product_id": "mug",
    "price": 9.99,
    "properties": '{"plan": "gold", "list": [1]}',
}


def read_lines(*events, event_type=""):
    """Read events as lines of a file."""
    content = "".join(f"{json.dumps(event)}\n" for event in events).encode()
    return [event for _, event in read_json(io.BytesIO(content), event_type, BitMap())]


def test_both_forms_are_the_same_event():
    assert from_http(HTTP) == from_record({**FLAT}, "users.behaviors.Purchase")
    assert from_http(HTTP).fields["properties"] == {"plan": "gold", "list": [1]}


def test_an_http_event_stays_as_it_is():
    before = json.dumps(HTTP)
    from_http(HTTP)
    assert json.dumps(HTTP) == before


@pytest.mark.parametrize("part", ["user", "properties"])
@pytest.mark.parametrize("value", [None, ..., "text", 5, []])
def test_an_http_event_without_a_part(part, value):
    """It gives the fields of the rest."""
    event = {name: item for name, item in HTTP.items() if name != part}
    if value is not ...:
        event[part] = value
    fields = from_http(event).fields
    assert fields["id"] == "event-1"
    assert ("external_user_id" in fields) == (part != "user")
    assert ("price" in fields) == (part != "properties")


def test_what_the_event_says_goes_over_what_its_properties_say():
    """A property cannot pretend to be somebody else."""
    event = {**HTTP, "properties": {"id": "another", "time": 1, "external_user_id": "bob", "user_id": "b"}}
    assert from_http(event).fields.items() >= {
        ("id", "event-1"),
        ("time", 1_764_000_000),
        ("external_user_id", "ann"),
        ("user_id", "braze-1"),
    }


@pytest.mark.parametrize("name", ["custom_properties", "purchase_properties"])
def test_custom_properties_have_storages_name(name):
    event = from_http({**HTTP, "properties": {name: {"plan": "gold"}}})
    assert event.fields["properties"] == {"plan": "gold"}
    assert name not in event.fields


def test_new_fields_of_an_http_event_stay():
    assert from_http({**HTTP, "trace": "t-1"}).fields["trace"] == "t-1"
    assert from_http({**HTTP, "user": {"shoe_size": 43}}).fields["shoe_size"] == 43


@pytest.mark.parametrize("name", ["properties", "custom_attributes"])
@pytest.mark.parametrize(
    ("text", "value"),
    [
        ('{"a": {"b": [1, null]}}', {"a": {"b": [1, None]}}),
        ("{}", {}),
        ('{"a": NaN}', None),  # checked below: NaN is equal to nothing
        ("", ""),
        ("gold", "gold"),
        ("[1]", "[1]"),
        ('"gold"', '"gold"'),
        ('{"a": ', '{"a": '),
        ({"a": 1}, {"a": 1}),
        (5, 5),
        (None, None),
    ],
)
def test_json_in_a_text(name, text, value):
    """An object is taken out; whatever else it is stays, and is not lost."""
    found = from_record({"id": "1", name: text}, "x.Y").fields[name]
    if text == '{"a": NaN}':
        assert math.isnan(found["a"])
    else:
        assert found == value


@pytest.mark.parametrize(
    ("name", "normal"),
    [
        ("users.messages.email.Open", "users.messages.email.Open"),
        ("  users.messages.email.Open\n", "users.messages.email.Open"),
        ("users.agentconsole.AgentExecuted", "agentconsole.AgentExecuted"),
        ("agentconsole.AgentExecuted", "agentconsole.AgentExecuted"),
        ("users.contentoptimizer.Run", "contentoptimizer.Run"),
        ("users.agentconsolevisit.Run", "users.agentconsolevisit.Run"),
        ("", ""),
        (None, ""),
        (5, ""),
    ],
)
def test_normal_type(name, normal):
    assert normal_type(name) == normal


def test_the_record_knows_its_type_better_than_the_path():
    assert from_record({"id": "1", "event_type": "x.Y"}, "z.Z") == CurrentsEvent("x.Y", {"id": "1"})
    for nothing in (None, ""):
        assert from_record({"id": "1", "event_type": nothing}, "z.Z") == CurrentsEvent("z.Z", {"id": "1"})
    assert from_http({"id": "1"}).type == ""


@pytest.mark.parametrize(
    ("spelt", "value"),
    [
        ({"string": "x"}, "x"),
        ({"int": 5}, 5),
        ({"long": 0}, 0),
        ({"boolean": False}, False),
        ({"float": 9.99}, 9.99),
        ({"double": 1e300}, 1e300),
        ({"array": ["a", "b"]}, ["a", "b"]),
        ({"array": [{"string": "a"}, None]}, ["a", None]),
        ({"map": {"a": "b"}}, {"a": "b"}),
        ({"bytes": "ü"}, "ü"),
        ("x", "x"),
        ({"Place": {"city": "Bern"}}, {"Place": {"city": "Bern"}}),
        ({"string": "x", "int": 5}, {"string": "x", "int": 5}),
        ({}, {}),
        ([], []),
    ],
)
def test_unions_in_json(spelt, value):
    assert without_unions_of({"field": spelt}) == {"field": value}


@pytest.mark.parametrize("nothing", [None, {"null": None}, {"string": None}])
def test_null_in_json(nothing):
    assert without_unions_of({"a": nothing, "b": 1}) == {"b": 1}


def test_a_flat_event_with_unions_and_its_type():
    """As a job writes it that has read the files by their folders: the type is one more field."""
    flat = {"id": "1", "time": 5, "external_user_id": {"string": "ann"}, "properties": {"string": '{"a": 1}'}}
    wanted = {"id": "1", "time": 5, "external_user_id": "ann", "properties": {"a": 1}}
    (event,) = read_lines(flat, event_type="users.behaviors.Purchase")
    assert event == CurrentsEvent("users.behaviors.Purchase", wanted)
    (event,) = read_lines({**flat, "event_type": "users.behaviors.Purchase"})
    assert event == CurrentsEvent("users.behaviors.Purchase", wanted)


def test_an_http_event_whose_type_only_the_path_knows():
    """Its user is a user all the same, and their ids are no properties."""
    (event,) = read_lines(
        {name: value for name, value in HTTP.items() if name != "event_type"},
        event_type="users.behaviors.Purchase",
    )
    assert event == from_http(HTTP)


SECONDS = 1_764_000_000


@pytest.mark.parametrize(
    ("value", "seconds", "finer"),
    [
        (SECONDS, SECONDS, False),
        (1, 1, False),
        (99_999_999_999, 99_999_999_999, False),
        (SECONDS * 10**3, SECONDS, True),
        (SECONDS * 10**6, SECONDS, True),
        (SECONDS * 10**9, SECONDS, True),
        (SECONDS * 10**3 + 250, SECONDS + 0.25, True),
        (100_000_000_000, 100_000_000, True),
        (SECONDS + 0.5, SECONDS + 0.5, False),
        (float(SECONDS), SECONDS, False),
        (0.25, 0.25, False),
        (str(SECONDS), SECONDS, False),
        (f" {SECONDS} ", SECONDS, False),
        (f"{SECONDS}.5", SECONDS + 0.5, False),
        (f"{SECONDS}000", SECONDS, True),
        ("1.764e9", SECONDS, False),
    ],
)
def test_times(value, seconds, finer):
    assert epoch_seconds(value) == (pytest.approx(seconds, abs=1e-6), finer)


@pytest.mark.parametrize(
    "value",
    [
        0,
        -1,
        -SECONDS,
        0.0,
        -0.5,
        None,
        True,
        False,
        "",
        "0",
        "-5",
        "soon",
        "nan",
        "inf",
        math.nan,
        math.inf,
        -math.inf,
        [],
        [SECONDS],
        {"long": SECONDS},
    ],
)
def test_no_times(value):
    assert epoch_seconds(value) is None


@pytest.mark.parametrize(
    "value",
    [10**400, -(10**400), "9" * 400, "9" * 5000, 1e308],
    ids=["number", "negative", "text", "long text", "float"],
)
def test_a_number_that_is_far_too_large_does_not_stop_the_reader(value):
    """It is some time, or none."""
    found = epoch_seconds(value)
    assert found is None or 0 < found[0] < 100_000_000_000


def test_a_time_of_avros_own_kind():
    """Where ``time`` is a timestamp in the schema, the library gives a datetime."""
    moment = datetime(2025, 11, 24, 16, 0, 0, 250_000, tzinfo=UTC)
    found = epoch_seconds(moment)
    assert found is not None
    assert found[0] == SECONDS + 0.25


@pytest.mark.parametrize(
    ("text", "value"),
    [
        (b'{"a": [1, 2.5, "\\u00fc", true, null]}', {"a": [1, 2.5, "ü", True, None]}),
        (b' \t{"a": 1}\r\n', {"a": 1}),
        (rb'"\ud83d"', "\ud83d"),
        (rb'"\ud83c\udf89"', "🎉"),
        (b"Infinity", math.inf),
        (b"1e999", math.inf),
        (b'{"a": 1, "a": 2}', {"a": 2}),
        (b"12345678901234567890123", 12345678901234567890123),
    ],
)
def test_parse(text, value):
    assert parse(text) == value


@pytest.mark.parametrize(
    "text",
    [b"", b"{", b"{'a': 1}", b'{"a": 1,}', b'{"a": 1} 2', b"\xff", b'"\xff"', b"[" * 10**6, b"9" * 5000],
)
def test_no_json(text):
    with pytest.raises(ValueError):  # noqa: PT011 - whichever says it
        parse(text)


def test_text_that_is_no_utf_8_is_told_from_text_that_is_no_json():
    for text in (b'{"a": "\xff"}', b'{"\xff": 1}', b"\xff"):
        with pytest.raises(UnicodeDecodeError):
            parse(text)
    with pytest.raises(ValueError) as caught:  # noqa: PT011
        parse(b"{")
    assert not isinstance(caught.value, UnicodeDecodeError)
