"""Values as Heap takes them."""

from __future__ import annotations

import json
import math
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from uuid import UUID

import pytest

from airflow_provider_heapbraze.events.properties import Properties, as_text, cut


def put(value, name="p"):
    properties = Properties()
    properties.put(name, value)
    return properties


def units(text):
    return len(text.encode("utf-16-le", errors="surrogatepass")) // 2


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("gold", "gold"),
        ("", ""),
        (" gold ", " gold "),
        (5, 5),
        (0, 0),
        (-5, -5),
        (9.99, 9.99),
        (0.0, 0.0),
        (True, "true"),
        (False, "false"),
        (2**53 - 1, 2**53 - 1),
        (-(2**53) + 1, -(2**53) + 1),
        (2**53, "9007199254740992"),
        (-(2**53), "-9007199254740992"),
        (10**30, "1" + "0" * 30),
        (1e300, 1e300),
        (["a", "b"], "a||b"),
        (["a", None, "b"], "a||b"),
        ([1, 2.5, True, "x"], "1||2.5||true||x"),
        ([["a", "b"], ["c"]], "a||b||c"),
        ([], ""),
        ([None], ""),
        (("a", "b"), "a||b"),
        ([{"sku": "mug", "n": 2}], '{"sku":"mug","n":2}'),
        (b"bytes", "bytes"),
        (b"\xff", "\ufffd"),
        (Decimal("12.30"), "12.30"),
        (UUID(int=1), "00000000-0000-0000-0000-000000000001"),
        (datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC), "2026-01-02T03:04:05+00:00"),
        (
            datetime(2026, 1, 2, 3, 4, 5, 6, tzinfo=timezone(timedelta(hours=1))),
            "2026-01-02T03:04:05.000006+01:00",
        ),
        (date(2026, 1, 2), "2026-01-02"),
        (time(3, 4), "03:04:00"),
    ],
)
def test_values(value, shown):
    properties = put(value)
    assert properties.values == {"p": shown}
    assert type(properties.values["p"]) is type(shown)
    assert not properties.cuts


@pytest.mark.parametrize("value", [None, math.nan, math.inf, -math.inf, {}, {"a": None}, {"a": {"b": None}}])
def test_what_says_nothing_is_left_out(value):
    assert put(value).values == {}


def test_nested_objects():
    value = {"method": "express", "address": {"city": "Zürich", "floors": [1, 2], "gone": None}, "": 1}
    assert put(value, "shipping").values == {
        "shipping.method": "express",
        "shipping.address.city": "Zürich",
        "shipping.address.floors": "1||2",
        "shipping.": 1,
    }


def nested(depth, wrap):
    value = "end"
    for _ in range(depth):
        value = wrap(value)
    return value


@pytest.mark.parametrize("depth", [1, 31, 32, 33, 100, 900])
def test_deep_objects(depth):
    """Names go down 32 levels; what is below is one text."""
    properties = put(nested(depth, lambda value: {"a": value}))
    ((name, value),) = properties.values.items()
    assert name == "p" + ".a" * min(depth, 32)
    if depth <= 32:
        assert value == "end"
    else:
        assert value == cut(json.dumps(nested(depth - 32, lambda value: {"a": value}), separators=(",", ":")))


@pytest.mark.parametrize("depth", [1, 32, 200, 900])
def test_deep_lists(depth):
    """JSON of this depth is read, so it comes this far."""
    ((name, value),) = put(nested(depth, lambda value: [value])).values.items()
    assert name == "p"
    assert isinstance(value, str)
    assert depth > 32 or value == "end"


@pytest.mark.parametrize("depth", [20, 450])
def test_deep_lists_of_objects(depth):
    ((_, value),) = put([nested(depth, lambda value: [{"a": value}])]).values.items()
    assert isinstance(value, str)


@pytest.mark.parametrize(
    "item",
    ["\ud83d", {"half": "\ud83d"}, {"\ud83d": 1}, 10**30, {"n": 10**30}, {"n": -(10**30)}, {"n": math.nan}],
    ids=str,
)
@pytest.mark.parametrize("shape", [lambda item: [item], lambda item: {"a": [item]}, lambda item: item])
def test_strange_values_in_lists_and_objects(item, shape):
    """Whatever JSON can hold can be put; what Heap gets has no half characters (see the mapping)."""
    for value in put(shape(item)).values.values():
        assert isinstance(value, (str, int, float))


@pytest.mark.parametrize("digits", [400, 4300])
def test_endless_numbers(digits):
    (value,) = put(10 ** (digits - 1)).values.values()
    assert value == "1" + "0" * (min(digits, 1023) - 1)


# Cuts: 1,023 characters as UTF-16 counts them.


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("x" * 511, 511),
        ("x" * 512, 512),
        ("x" * 1022, 1022),
        ("x" * 1023, 1023),
        ("x" * 1024, 1023),
        ("x" * 100_000, 1023),
        ("ü" * 1023, 1023),
        ("東" * 1024, 1023),
        ("🎉" * 511, 511),
        ("🎉" * 511 + "x", 512),
        ("🎉" * 512, 511),
        ("x" + "🎉" * 511, 512),
        ("xx" + "🎉" * 511, 512),  # half a character is none
        ("🎉" * 1023, 511),
        ("x" * 1022 + "🎉", 1022),
        ("\ud83d" * 1023, 1023),
        ("\ud83d" * 1024, None),
    ],
)
def test_cuts(text, kept):
    short = cut(text)
    assert units(short) <= 1023
    assert text.startswith(short)
    assert kept is None or short == text[:kept]
    assert (short is text) == (units(text) <= 1023)
    for properties in (put(text), put("x", text)):
        assert properties.cuts == (short is not text)
    assert put(text).values == {"p": short}
    assert put(1, text).values == {short: 1}


def test_cuts_are_counted_where_they_are():
    properties = Properties()
    properties.put("n" * 1024, "v" * 1024)
    properties.put("n", ["v" * 600, "v" * 600])
    properties.put("short", "value")
    properties.put("o", {"a" * 1021: 1, "b" * 1022: 2})
    assert properties.cuts == 4
    assert properties.values == {
        "n" * 1023: "v" * 1023,
        "n": "v" * 600 + "||" + "v" * 421,
        "short": "value",
        "o." + "a" * 1021: 1,
        "o." + "b" * 1021: 2,
    }


@pytest.mark.parametrize("most", [1, 2, 255])
def test_cuts_elsewhere(most):
    assert cut("x" * most, most) == "x" * most
    assert cut("x" * (most + 1), most) == "x" * most
    assert cut("🎉" * most, most) == "🎉" * (most // 2)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("a", "a"),
        (None, ""),
        (5, "5"),
        (5.0, "5.0"),
        (True, "true"),
        (math.nan, ""),
        ({"a": 1}, '{"a":1}'),
        ([], ""),
    ],
)
def test_as_text(value, text):
    assert as_text(value) == text
