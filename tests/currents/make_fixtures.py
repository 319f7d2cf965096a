"""Write the Currents fixtures from the field facts.

From the repository's root: python tests/currents/make_fixtures.py ../shared/contracts/currents-events.json
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import uuid
from collections.abc import Iterable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tests.currents.samples import (
    FIRST_TIME,
    HERE,
    avro_path,
    flat_path,
    with_unions,
    write_avro,
)

NAMESPACE = uuid.UUID("0b3d6f0a-52f4-4c55-8d0e-4d0f7a1c2b9e")
FILLED, SPARSE, UNICODE = range(3)
FREE_TEXT_TAIL = ": Größe, crème brûlée, 東京 🎉"

# What stands in fields whose name asks for a certain look: one value per variant of the event.
KNOWN = {
    "abort_type": ("liquid_abort_message", "liquid_abort_message", "rate_limit"),
    "ad_id_type": ("ios_idfa", "ios_idfa", "google_ad_id"),
    "browser": ("Firefox", "Firefox", "Safari"),
    "carrier": ("Example Mobile", "Example Mobile", "Example Télécom"),
    "channel": ("email", "email", "sms"),
    "country": ("DE", "DE", "FR"),
    "currency": ("USD", "EUR", "EUR"),
    "device_class": ("phone", "phone", "tablet"),
    "device_model": ("iPhone 16", "iPhone 16", "Pixel 9"),
    "device_os": ("iOS", "iOS", "Android"),
    "endpoint_url": ("https://hooks.example.com/in",) * 3,
    "esp": ("sparkpost", "sparkpost", "sendgrid"),
    "from_domain": ("mail.example.com",) * 3,
    "from_phone_number": ("+15550100001",) * 3,
    "gender": ("F", "F", "O"),
    "host": ("hooks.example.com",) * 3,
    "http_status_code": (503, 503, 404),
    "inbound_phone_number": ("+15550100002",) * 3,
    "is_terminal": (True, True, False),
    "language": ("de", "de", "fr"),
    "machine_open": ("true",) * 3,
    "mailbox_provider": ("gmail", "gmail", "outlook"),
    "name": ("Order Placed", "Trial Started", "Commande passée ☕"),
    "os_version": ("18.1", "18.1", "15"),
    "platform": ("ios", "ios", "android"),
    "price": (9.99, 19.95, 1234.56),
    "recipient_domain": ("example.org",) * 3,
    "resolution": ("1179x2556", "1179x2556", "1080x2424"),
    "sdk_version": ("11.2.0", "11.2.0", "33.1.0"),
    "sending_ip": ("192.0.2.17", "192.0.2.17", "2001:db8::17"),
    "short_url": ("https://ex.mpl/a1", "https://ex.mpl/b2", "https://ex.mpl/c3"),
    "subscription_status": ("Subscribed", "Unsubscribed", "Opted In"),
    "suspected_bot_click_reason": (["user_agent", "ip_range"], [], ["fast_click"]),
    "media_urls": (["https://img.example.com/1.jpg", "https://img.example.com/2.jpg"], [], ["https://img.example.com/3.jpg"]),
    "timezone": ("Europe/Berlin", "Europe/Berlin", "America/Argentina/Buenos_Aires"),
    "url": ("https://www.example.com/shop?a=1&b=2", "https://www.example.com/", "https://www.example.com/caf%C3%A9"),
    "url_path": ("/in", "/in", "/caf%C3%A9"),
    "user_agent": ("Mozilla/5.0 (Macintosh; Intel Mac OS X 14_0)",) * 3,
}  # fmt: skip

FREE_TEXT = {
    "abort_log", "agent_name", "bounce_reason", "button_string", "campaign_name", "canvas_name",
    "canvas_step_name", "canvas_variation_name", "deferral_reason", "element_label", "error",
    "experiment_split_name", "input", "line_channel_name", "message_body", "message_variation_name", "output",
    "provider_error_title", "raw_response", "retry_log", "template_name",
}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("facts", type=Path, help="currents-events.json")
    facts = json.loads(parser.parse_args().facts.read_text(encoding="utf-8"))["events"]
    for folder in ("avro", "flat"):
        shutil.rmtree(HERE / folder, ignore_errors=True)
    over_http = []
    for position, (event_type, fact) in enumerate(sorted(facts.items())):
        numbers = range(3 * position + 1, 3 * position + 4)
        events = [event(event_type, fact["avro"], number, variant) for variant, number in enumerate(numbers)]
        write_files(event_type, schema(event_type, fact["avro"]), events)
        if "http" in fact:
            over_http += [http_event(fact["http"], one) for one in events]
    write_lines(HERE / "http.jsonl", over_http)


def write_files(event_type: str, avro_schema: dict[str, Any], events: list[dict[str, Any]]) -> None:
    marker = uuid.uuid5(NAMESPACE, event_type).bytes  # not random: the same facts give the same bytes
    write_avro(avro_path(event_type), avro_schema, events, sync_marker=marker)
    write_lines(flat_path(event_type), (with_unions(one, avro_schema) for one in events))


def write_lines(path: Path, rows: Iterable[dict[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{compact(row)}\n" for row in rows), encoding="utf-8")


def compact(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def schema(event_type: str, fields: dict[str, Any]) -> dict[str, Any]:
    group, name = event_type.rsplit(".", 1)
    return {
        "type": "record",
        "name": name,
        "namespace": f"com.example.currents.inner.{group}",
        "doc": f"A record for {event_type}",
        "fields": [schema_field(name, fact) for name, fact in fields.items()],
    }


def schema_field(name: str, fact: dict[str, Any]) -> dict[str, Any]:
    avro_type = {"type": "array", "items": "string"} if fact["type"] == "array" else fact["type"]
    doc = ("[PII] " if fact.get("pii") else "") + name.replace("_", " ").capitalize()
    if fact.get("nullable"):
        return {"name": name, "type": ["null", avro_type], "doc": doc, "default": None}
    return {"name": name, "type": avro_type, "doc": doc}


def event(event_type: str, fields: dict[str, Any], number: int, variant: int) -> dict[str, Any]:
    """Make one flat record; variant says whether it is filled, sparse, or filled with unicode text."""
    return {
        name: None if is_null(name, fact, variant) else field_value(event_type, name, fact, number, variant)
        for name, fact in fields.items()
    }


def is_null(name: str, fact: dict[str, Any], variant: int) -> bool:
    if not fact.get("nullable"):
        return False
    return variant == (UNICODE if name == "external_user_id" else SPARSE)


def field_value(event_type: str, name: str, fact: dict[str, Any], number: int, variant: int) -> Any:
    own = {
        "id": str(uuid.uuid5(NAMESPACE, f"{event_type} {number}")),
        "user_id": uuid.uuid5(NAMESPACE, f"user {number}").hex[:24],
        "external_user_id": f"person-{number:06}-private",
        "time": FIRST_TIME + 37 * number,
        "email_address": f"person-{number:06}@private.example",
        "properties": compact(custom_properties(number, variant)),
        "message_extras": compact({"tier": "private gold" + (" 🎁 perché no" if variant == UNICODE else "")}),
    }  # fmt: skip
    if name in own:
        return own[name]
    if fact.get("pii"):
        return f"private {name} {number:06}{tail(name, variant)}"
    if name in KNOWN:
        return KNOWN[name][variant]
    return plain_value(name, fact["type"], number, variant)


def plain_value(name: str, avro_type: str, number: int, variant: int) -> Any:
    """Make a value that has only its type to go by; the unicode variant has the falsy ones, 0 and false."""
    if avro_type == "boolean":
        return variant != UNICODE
    if avro_type in {"int", "long"}:
        return 0 if variant == UNICODE else 1000 + number
    if avro_type == "string":
        return f"{name.replace('_', '-')}-{number}{tail(name, variant)}"
    raise ValueError(f"{name} is {avro_type}: say in KNOWN what it looks like")


def tail(name: str, variant: int) -> str:
    return FREE_TEXT_TAIL if variant == UNICODE and name in FREE_TEXT else ""


def custom_properties(number: int, variant: int) -> dict[str, Any]:
    return {
        "plan": "or, édition spéciale 🎉" if variant == UNICODE else "gold",
        "quantity": number,
        "total": 19.95,
        "first_order": variant == FILLED,
        "coupon": None,
        "tags": ["new", "crème brûlée 🍮" if variant == UNICODE else "sale"],
        "shipping": {"method": "express", "cost": 4.5, "address": {"city": "Zürich", "floors": [1, 2]}},
    }


def http_event(form: dict[str, Any], record: dict[str, Any]) -> dict[str, Any]:
    """Put the record in Custom HTTP form: same facts, nulls left out, custom properties decoded."""
    values = {name: value for name, value in record.items() if value is not None}
    if "properties" in values:
        decoded = json.loads(values.pop("properties"))
        values |= {"custom_properties": decoded, "purchase_properties": decoded}
    return {
        "event_type": form["event_type"],
        "id": record["id"],
        "time": record["time"],
        "user": {name: values[name] for name in form["user"] if name in values},
        "properties": {name: values[name] for name in form["properties"] if name in values},
    }


if __name__ == "__main__":
    main()
