"""What the receiver answers, and what the sender makes of it.

Heap sends again after every 4xx and 5xx. So does Braze, but: a batch that is refused with 400 or 413 is split
and sent again, and a single event that is refused with 400 is dropped for good; after 401, 403 and 404
nothing is sent until somebody mends the connector; and after five days of any other refusal Braze gives the
connector up, and what happens then is lost.

So Braze never gets a 400 here. And who is known to be the sender is asked to send again only what another
time, or another size, can mend: what nobody understands is kept in quarantine, and answered with 200.
"""

from __future__ import annotations

from dataclasses import dataclass
from http import HTTPStatus

from airflow_provider_heapbraze.landing.settings import BRAZE_TOKENS, HEAP_SECRETS

RETRY_AFTER = 10  # seconds; a full disk and a dead store take longer, and are asked again in vain


@dataclass(frozen=True)
class Answer:
    """An answer to a delivery.

    :param outcome: how it is counted.
    :param text: for whoever sets the sender up.
    """

    status: HTTPStatus
    outcome: str
    text: str

    @property
    def headers(self) -> dict[str, str]:
        """Return the headers that belong to it."""
        if self.status == HTTPStatus.SERVICE_UNAVAILABLE:
            return {"Retry-After": str(RETRY_AFTER)}
        if self.status == HTTPStatus.UNAUTHORIZED:
            return {"WWW-Authenticate": "Bearer"}
        if self.status == HTTPStatus.REQUEST_TIMEOUT:
            return {"Connection": "close"}
        return {}


class RefusedError(Exception):
    """A delivery is not taken; nothing of it was written.

    :param answer: for its sender.
    """

    def __init__(self, answer: Answer) -> None:
        super().__init__(answer.outcome)
        self.answer = answer


LANDED = Answer(HTTPStatus.OK, "landed", "")
EMPTY = Answer(HTTPStatus.OK, "empty", "")
QUARANTINED = Answer(HTTPStatus.OK, "quarantined", "It is not understood, and is kept as it came.")

UNSIGNED = Answer(HTTPStatus.BAD_REQUEST, "unsigned", "Heap-Hash is missing or malformed.")
STALE = Answer(HTTPStatus.FORBIDDEN, "stale", "The time in Heap-Hash is too old, or ahead.")
WRONG_SIGNATURE = Answer(HTTPStatus.FORBIDDEN, "wrong_signature", "The signature in Heap-Hash is wrong.")
WRONG_TOKEN = Answer(HTTPStatus.UNAUTHORIZED, "wrong_token", "The bearer token is missing or wrong.")
NO_SOURCE = Answer(HTTPStatus.NOT_FOUND, "no_source", "A source is named with 1 to 64 of A-Z a-z 0-9 _ -.")
TOO_SLOW = Answer(HTTPStatus.REQUEST_TIMEOUT, "too_slow", "The body took too long.")
TOO_LARGE = Answer(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "too_large", "The body is too large.")
TOO_MANY = Answer(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "too_many", "The body holds too many items.")
TOO_DEEP = Answer(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "too_deep", "The body is nested too deeply.")
GONE = Answer(HTTPStatus.SERVICE_UNAVAILABLE, "gone", "The sender went away.")
NO_SECRET = Answer(
    HTTPStatus.SERVICE_UNAVAILABLE,
    "not_configured",
    f"No secret of Heap's webhook is configured. Set {HEAP_SECRETS}; in Airflow's API server, "
    "webhook_secret in the extra of the connection heap_default.",
)
NO_TOKEN = Answer(
    HTTPStatus.SERVICE_UNAVAILABLE,
    "not_configured",
    f"No token of Braze's connector is configured. Set {BRAZE_TOKENS}; in Airflow's API server, "
    "currents_token in the extra of the connection braze_default.",
)
BUSY = Answer(HTTPStatus.SERVICE_UNAVAILABLE, "busy", "Too many requests are open.")
NOT_WRITTEN = Answer(HTTPStatus.SERVICE_UNAVAILABLE, "not_written", "It could not be written down.")
UNEXPECTED = Answer(HTTPStatus.SERVICE_UNAVAILABLE, "unexpected", "The receiver failed.")


def quarantine_full(size: int, place: str, held: str, most: str) -> Answer:
    """Answer that a body is not understood, and that there is no room to keep it.

    :param size: of the body, in bytes.
    :param place: where it belongs, below the landing path.
    :param held: what is there.
    :param most: what may be.
    """
    return Answer(
        HTTPStatus.SERVICE_UNAVAILABLE,
        "quarantine_full",
        f"Its body of {size:,} bytes is not understood, and was not kept: its folder below {place} of the "
        f"landing path holds {held}, and may hold {most}. It comes again; Braze gives up after five days. "
        "Look at the files that are there, and move them away.",
    )
