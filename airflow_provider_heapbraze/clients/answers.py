"""What an answer means: one table per endpoint from HTTP status to the typed error, and so to what is done.

The type of the error is the action: a :class:`PermanentError` ends the call, :class:`RateLimitedError` and
:class:`ResourceLockedError` are waits, every other :class:`TransientError` is tried again, None is a success.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

from airflow_provider_heapbraze.clients.errors import (
    AuthenticationError,
    HeapBrazeError,
    PayloadTooLargeError,
    PermanentError,
    PermissionDeniedError,
    RateLimitedError,
    RequestRejectedError,
    ResourceLockedError,
    ServerError,
)

if TYPE_CHECKING:
    from airflow_provider_heapbraze.clients.budget import Pacer


@dataclass(frozen=True)
class Answer:
    """An HTTP answer; its repr shows the status only, since a body may quote what was sent.

    :param status: HTTP status.
    :param headers: names in any case.
    :param content: the body.
    """

    status: int
    headers: Mapping[str, str] = field(repr=False)
    content: bytes = field(repr=False)

    @cached_property
    def body(self) -> Any | None:
        """Return the parsed JSON; None where the body is no JSON."""
        try:
            return json.loads(self.content)
        except (ValueError, RecursionError):
            return None

    @property
    def text(self) -> str:
        """Return the body in lower case, to look for known sentences. Never to be shown."""
        return self.content.decode(errors="replace").lower()


@dataclass(frozen=True)
class Endpoint:
    """A place that takes requests.

    :param name: for people: log lines and messages.
    :param budget: how many requests it may take.
    :param rules: what each status means.
    :param permission: the permission that a Braze REST key needs for it.
    """

    name: str
    budget: Pacer
    rules: Rules
    permission: str | None = None

    def error_of(self, answer: Answer) -> HeapBrazeError | None:
        """Return what is wrong with an answer, or None where it is a success."""
        rule = self.rules.get(answer.status) or self.rules.get(answer.status // 100) or self.rules[5]
        return rule(self, answer)


Rule = Callable[[Endpoint, Answer], HeapBrazeError | None]
# Keys are a status, or its first digit for all that are not named; 5 is for what no key covers.
Rules = Mapping[int, Rule]


def accepted(_endpoint: Endpoint, _answer: Answer) -> None:
    """Call it a success."""


def says(error: Callable[[str], HeapBrazeError], sentence: str) -> Rule:
    """Make a rule that gives an error with a sentence; it may use {endpoint}, {status} and {permission}."""

    def rule(endpoint: Endpoint, answer: Answer) -> HeapBrazeError:
        return error(_fill(sentence, endpoint, answer))

    return rule


def refuses(sentence: str, error: type[RequestRejectedError] = RequestRejectedError) -> Rule:
    """Make a rule for a body that is refused."""

    def rule(endpoint: Endpoint, answer: Answer) -> HeapBrazeError:
        return error(_fill(sentence, endpoint, answer), status=answer.status)

    return rule


def by_text(known: Mapping[str, Rule], otherwise: Rule) -> Rule:
    """Make a rule that picks another one by what the answer says; the first known text wins.

    :param known: text in lower case to rule.
    """

    def rule(endpoint: Endpoint, answer: Answer) -> HeapBrazeError | None:
        said = answer.text
        return next((known[text] for text in known if text in said), otherwise)(endpoint, answer)

    return rule


def _fill(sentence: str, endpoint: Endpoint, answer: Answer) -> str:
    return sentence.format(endpoint=endpoint.name, status=answer.status, permission=endpoint.permission)


BASIC_RULES: Rules = {
    1: says(ServerError, "{endpoint} answered {status}, which is no final answer."),
    2: accepted,
    3: says(
        PermanentError,
        "{endpoint} answered {status}: it wants the request to go elsewhere. That is not done, because the "
        "keys would go along. Look at the connection's host.",
    ),
    4: refuses(
        "{endpoint} answered {status} and took nothing of this request. Look at the connection's host."
    ),
    5: says(ServerError, "{endpoint} answered {status}: the server failed."),
    400: refuses("{endpoint} answered 400: it refuses what was sent."),
    401: says(AuthenticationError, "{endpoint} answered 401: the key was refused. Look at the connection."),
    403: says(PermissionDeniedError, "{endpoint} answered 403: the key may not do this."),
    408: says(ServerError, "{endpoint} answered 408: the request took too long."),
    413: refuses("{endpoint} answered 413: the request is too large.", PayloadTooLargeError),
    423: says(ResourceLockedError, "{endpoint} answered 423: another request holds the resource."),
    429: says(RateLimitedError, "{endpoint} answered 429: too many requests."),
}
