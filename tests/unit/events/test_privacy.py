"""Which fields are personal data; what becomes of them is the mapping's business."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from airflow_provider_heapbraze.events.privacy import hashed, personal_fields
from tests.currents import samples

FACTS = Path(__file__).parents[3].parent / "shared" / "contracts" / "currents-events.json"
NOTHING = frozenset()


@pytest.mark.skipif(not FACTS.exists(), reason="the facts are not part of this repository")
def test_without_a_schema_we_know_what_is_personal():
    events = json.loads(FACTS.read_text(encoding="utf-8"))["events"]
    assert len(events) == 50
    for event_type, fact in events.items():
        marked = {name for name, field in fact["avro"].items() if field.get("pii")}
        assert personal_fields(event_type, NOTHING) & fact["avro"].keys() == marked, event_type


@pytest.mark.parametrize("event_type", samples.TYPES)
def test_what_the_schema_says_is_what_we_know(event_type):
    marked = samples.pii_fields(event_type)
    fields = {field["name"] for field in samples.schema(event_type)["fields"]}
    assert personal_fields(event_type, NOTHING) & fields == marked
    assert personal_fields(event_type, frozenset(marked)) & fields == marked


def test_a_type_that_nobody_knows_is_treated_with_care():
    unknown = personal_fields("users.messages.pigeon.Land", NOTHING)
    assert {"email_address", "phone_number", "country", "external_user_id", "message_extras"} <= unknown
    assert personal_fields("", NOTHING) == unknown


def test_marks_are_added_to_what_is_known():
    assert personal_fields("x.Y", frozenset({"shoe_size"})) == personal_fields("x.Y", NOTHING) | {"shoe_size"}
    first = "users.behaviors.app.FirstSession"
    assert "country" not in personal_fields(first, NOTHING)
    assert "country" in personal_fields(first, frozenset({"country"}))


def test_hashes():
    first = hashed("ann@example.com", b"salt")
    assert first == hashed("ann@example.com", b"salt")
    assert {first} & {hashed("ann@example.com", b"pepper"), hashed("Ann@example.com", b"salt")} == set()
    assert "ann" not in first


def test_a_hash_is_the_same_for_ever():
    """Heap's users join on it over the years: HMAC-SHA256 of the value, with the salt as its key."""
    assert hashed("ann", b"salt") == "5c72f4886bc4408f8687cb4ebdda13dcaf26bf660495b4e887a787fc5935e55d"


@pytest.mark.parametrize("value", ["", "🎉", "\ud83d", "x" * 100_000])
def test_any_text_has_a_hash(value):
    assert len(hashed(value, b"salt")) == 64
