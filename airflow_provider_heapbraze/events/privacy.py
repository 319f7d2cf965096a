"""Which fields of a Currents event are personal data.

Avro says it itself: Braze's schemas mark such fields with ``[PII]``. JSON does not: there this table does,
made from the same marks (Braze: Currents event schemas, version 12). It holds for Avro, too, so that an
event is the same from either form.
"""

from __future__ import annotations

import hashlib
import hmac

# fmt: off
PERSONAL = frozenset(
    {
        "abort_log", "ad_id", "altitude", "bounce_reason", "channel_identifier", "country",
        "deferral_reason", "dob", "email_address", "external_user_id", "first_name",
        "flow_response_json", "gender", "home_city", "input", "language", "last_name", "latitude",
        "locale_key", "longitude", "message_extras", "native_line_id", "output", "phone_number",
        "template_name", "to_phone_number", "user_id", "user_phone_number",
    }
)
# fmt: on
# Where Braze marks a name in other types and not in this one.
NOT_PERSONAL_IN = {
    "users.behaviors.app.FirstSession": frozenset({"country", "gender", "language"}),
    "users.messages.rcs.Send": frozenset({"message_extras"}),
}


def personal_fields(event_type: str, marked: frozenset[str]) -> frozenset[str]:
    """Return the names of all fields that hold personal data in events of a type.

    :param marked: those that the file's own schema marks.
    """
    return marked | (PERSONAL - NOT_PERSONAL_IN.get(event_type, frozenset()))


def hashed(value: str, salt: bytes) -> str:
    """Return what stands for a value: always the same, and of no use to whoever lacks the salt."""
    return hmac.new(salt, value.encode(errors="surrogatepass"), hashlib.sha256).hexdigest()
