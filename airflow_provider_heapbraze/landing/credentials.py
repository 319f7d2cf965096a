"""Who sent a delivery: Heap's signature and Braze's bearer token. Both are compared in constant time."""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from airflow_provider_heapbraze.landing.answers import (
    STALE,
    UNSIGNED,
    WRONG_SIGNATURE,
    WRONG_TOKEN,
    RefusedError,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

# As Heap's own reference receiver has it; milliseconds.
OLDEST = 60_000
MOST_AHEAD = 1_000
SIGNATURE = re.compile(r"ts:([0-9]{1,15}),\s*hmac:([A-Za-z0-9+/]{43}=)")  # SHA-256 in base64
BEARER = re.compile(r"Bearer +(\S+)", re.IGNORECASE)


@dataclass(frozen=True)
class HeapSignature:
    """What a ``Heap-Hash`` header says.

    :param sent_at: UTC epoch milliseconds, as it stands there.
    :param digest: of that text and the body.
    """

    sent_at: str
    digest: bytes

    def check_age(self, now: int) -> None:
        """Refuse what was signed too long ago, or ahead of time.

        :param now: UTC epoch milliseconds.
        :raises RefusedError: it was.
        """
        if not -MOST_AHEAD <= now - int(self.sent_at) <= OLDEST:
            raise RefusedError(STALE)

    def check(self, body: bytes, secrets: Sequence[str]) -> None:
        """Refuse what was signed with none of these secrets, or altered since.

        :param body: as it came.
        :raises RefusedError: it was.
        """
        message = self.sent_at.encode() + body
        digests = [hmac.digest(secret.encode(), message, hashlib.sha256) for secret in secrets]
        if not _is_one_of(self.digest, digests):
            raise RefusedError(WRONG_SIGNATURE)


def heap_signature(headers: Sequence[str]) -> HeapSignature:
    """Read the signature of a webhook.

    :param headers: all values of ``Heap-Hash``.
    :raises RefusedError: it is missing or malformed.
    """
    found = SIGNATURE.fullmatch(headers[0].strip()) if len(headers) == 1 else None
    if found is None:
        raise RefusedError(UNSIGNED)
    return HeapSignature(found[1], base64.b64decode(found[2]))


def check_bearer(headers: Sequence[str], tokens: Sequence[str]) -> None:
    """Refuse who does not know one of these tokens.

    :param headers: all values of ``Authorization``.
    :raises RefusedError: they do not.
    """
    # Airflow's API server, where everybody is an admin, adds a header of its own to the sender's.
    given = [found[1].encode() for found in map(BEARER.fullmatch, map(str.strip, headers)) if found]
    right = [token.encode() for token in tokens]
    if not any(_is_one_of(token, right) for token in given):
        raise RefusedError(WRONG_TOKEN)


def _is_one_of(given: bytes, right: Sequence[bytes]) -> bool:
    # All are compared, whichever is right: how long it takes must not tell.
    return any([hmac.compare_digest(given, one) for one in right])  # noqa: C419 - a generator would end early
