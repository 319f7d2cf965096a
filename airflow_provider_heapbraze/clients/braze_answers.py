"""What Braze's answers mean: tables from status and text to the typed error, and errors of single rows."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from airflow_provider_heapbraze.clients.answers import BASIC_RULES, by_text, refuses, says
from airflow_provider_heapbraze.clients.errors import (
    AuthenticationError,
    HeapBrazeError,
    PayloadTooLargeError,
    PermanentError,
    PermissionDeniedError,
    UnclearAnswerError,
)

if TYPE_CHECKING:
    from airflow_provider_heapbraze.clients.answers import Answer, Endpoint, Rule, Rules

_WRONG_INSTANCE = (
    "A wrong instance looks the same, so look at the connection's host or instance, too. Braze's own words "
    "are not shown, because they can quote the key."
)


def _partner_refused(sentence: str) -> Rule:
    return says(AuthenticationError, f"{{endpoint}} answered 401: {sentence} {_WRONG_INSTANCE}")


_TOO_LARGE = refuses("{endpoint} answered {status}: too much in one request.", PayloadTooLargeError)


def _understood_cohort(endpoint: Endpoint, answer: Answer) -> HeapBrazeError | None:
    """Take any 2xx for a success, since no success body is documented, unless it lists errors."""
    if isinstance(answer.body, dict) and answer.body.get("errors"):
        return UnclearAnswerError(
            f"{endpoint.name} answered {answer.status} with errors; which people they are about is not known."
        )
    return None


def _understood_rest(endpoint: Endpoint, answer: Answer) -> HeapBrazeError | None:
    """Take ``message: "success"`` for a success; with any other message Braze has done nothing."""
    message = answer.body.get("message") if isinstance(answer.body, dict) else None
    if message == "success":
        return None
    if isinstance(message, str) and "max input length exceeded" in message.lower():
        return _TOO_LARGE(endpoint, answer)
    return UnclearAnswerError(f"{endpoint.name} answered {answer.status} without saying success.")


_PEOPLE_REFUSED = refuses("{endpoint} answered 400: it refuses one of the people in the request.")

# Braze: Partner cohort import. What is wrong with the cohort itself is no RequestRejectedError: a smaller
# request would be refused, too.
COHORT_RULES: Rules = {
    **BASIC_RULES,
    2: _understood_cohort,
    400: by_text(
        {
            "cohort_changes": refuses("{endpoint} answered 400: cohort_changes is not what Braze takes."),
            "1,000": _TOO_LARGE,
            "1000": _TOO_LARGE,
            "alias": _PEOPLE_REFUSED,
            "user_ids": _PEOPLE_REFUSED,
            "device_ids": _PEOPLE_REFUSED,
            "cohort_id": says(
                PermanentError, "{endpoint} answered 400: cohort_id must be a valid string. Look at the DAG."
            ),
            "created_at": says(
                PermanentError, "{endpoint} answered 400: created_at must be a time in ISO 8601."
            ),
            "non-empty": says(
                PermanentError,
                "{endpoint} answered 400: the cohort's name must not be empty. Look at the DAG.",
            ),
        },
        otherwise=refuses("{endpoint} answered 400: it refuses what was sent, for a reason not known here."),
    ),
    401: by_text(
        {
            "partner not enabled": _partner_refused(
                "the partner is not enabled for the customer whose data_import_key this is. Look whether the "
                "data_import_key was copied from this partner's page under Technology Partners."
            ),
            "invalid partner api key": _partner_refused(
                "the partner_api_key was refused. Braze issues one for the US instances and one for the EU's."
            ),
            "invalid client secret": _partner_refused(
                "the data_import_key was refused. Copy it again from the partner's page under Technology "
                "Partners."
            ),
            "unauthorized access": _partner_refused(
                "access is not authorized. Look at the partner_api_key and at whether it belongs to "
                "partner_name."
            ),
        },
        otherwise=_partner_refused("the partner_api_key or the data_import_key was refused."),
    ),
    404: refuses(
        "{endpoint} answered 404: there is no such partner at this host. Look at the connection's "
        "partner_name and host."
    ),
}

# Braze: API errors and responses.
REST_RULES: Rules = {
    **BASIC_RULES,
    2: _understood_rest,
    401: says(
        AuthenticationError,
        "{endpoint} answered 401: the REST API key was refused. Look at the connection's password, and at "
        "its host or instance: a wrong instance looks the same.",
    ),
    403: says(
        PermissionDeniedError,
        "{endpoint} answered 403: the REST API key is right but lacks the permission {permission}, or the "
        "plan does. Give it to the key in Braze under Settings > APIs and Identifiers.",
    ),
}

# Braze: User track.
TRACK_RULES: Rules = {
    **REST_RULES,
    400: by_text({"max input length exceeded": _TOO_LARGE}, otherwise=BASIC_RULES[400]),
}

# The documented constants, and the sentences that the live API says instead. Whole matches only: "user not
# found for external_id" is about an external id, too, and passes on a later try.
_PERMANENT = {
    "external_id_too_large": re.compile(
        r"EXTERNAL_USER_ID_TOO_LARGE|'?external_id'? must be fewer than \d+ bytes", re.IGNORECASE
    ),
    "external_id_blocked": re.compile(
        r"BLACKLISTED_EXTERNAL_USER_ID|'?external_id'? is blacklisted", re.IGNORECASE
    ),
}


@dataclass(frozen=True)
class TrackResult:
    """What an answer of ``/users/track`` says against single objects.

    :param rejected: index to a short reason: refused for good.
    :param unsure: indexes whose fate the answer leaves open; to be sent again.
    """

    rejected: dict[int, str] = field(default_factory=dict)
    unsure: frozenset[int] = frozenset()


def track_result(body: Any, objects: int) -> TrackResult:
    """Sort the errors of an answer.

    An error of a kind that is not known leaves the fate of its object open; one without a usable index leaves
    open the fate of every object that is not rejected.

    :param body: the answer's JSON.
    :param objects: how many the request had.
    """
    rejected: dict[int, str] = {}
    unsure: set[int] = set()
    for error in _errors(body):
        index = _index(error, objects)
        reason = _permanent_reason(error)
        if index is None:
            unsure.update(range(objects))
        elif reason:
            rejected[index] = reason
        else:
            unsure.add(index)
    return TrackResult(rejected, frozenset(unsure.difference(rejected)))


def _errors(body: dict[str, Any]) -> list[Any]:
    errors = body.get("errors") or []
    return errors if isinstance(errors, list) else [errors]


def _index(error: Any, objects: int) -> int | None:
    if not isinstance(error, dict) or error.get("input_array", "attributes") != "attributes":
        return None
    index = error.get("index")
    usable = isinstance(index, int) and not isinstance(index, bool) and 0 <= index < objects
    return index if usable else None


def _permanent_reason(error: Any) -> str | None:
    kind = error.get("type") if isinstance(error, dict) else None
    if not isinstance(kind, str):
        return None
    return next((reason for reason, pattern in _PERMANENT.items() if pattern.fullmatch(kind.strip())), None)
