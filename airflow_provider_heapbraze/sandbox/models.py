"""What the control API takes: settings, faults, users and segments."""

from __future__ import annotations

from typing import Any, Literal, Self, get_args

from pydantic import BaseModel, ConfigDict, Field, model_validator

from airflow_provider_heapbraze.sandbox import connections

Group = Literal["cohorts", "track", "ids", "pool", "heap", "heap_identity"]
Permission = Literal[
    "users.track",
    "users.export.ids",
    "users.export.segment",
    "segments.list",
    "segments.details",
    "segments.data_series",
]
EndpointName = Literal[
    "cohort",
    "cohort-users",
    "users-track",
    "users-export-ids",
    "segments-list",
    "segments-details",
    "segments-data-series",
    "segment-export",
    "segment-export-file",
    "heap-track",
    "heap-user-properties",
    "heap-auth-token",
]
FaultKind = Literal[
    "429-retry-after-seconds",
    "429-retry-after-date",
    "429-reset-epoch",
    "429-reset-delta",
    "429-ratelimit-retry-after",
    "429-bare",
    "423",
    "5xx-before",
    "5xx-after",
    "cut-before",
    "cut-after",
    "errors-before",
    "errors-after",
    "unclear-before",
    "unclear-after",
    "message-before",
]


class Strict(BaseModel):
    """A body in which a misspelt field is an error, not ignored."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Limit(Strict):
    """So many requests in each window of the clock; Heap: so many events in any span of so many seconds."""

    limit: int = Field(ge=1)
    seconds: float = Field(gt=0)


# Braze: Rate limits; Heap: Track, bulk. Contracts differ: each is a setting.
DEFAULT_LIMITS: dict[Group, Limit] = {
    "cohorts": Limit(limit=250_000, seconds=3600),
    "track": Limit(limit=3_000, seconds=3),
    "ids": Limit(limit=250, seconds=60),
    "pool": Limit(limit=250_000, seconds=3600),
    "heap": Limit(limit=15_000, seconds=60),
    "heap_identity": Limit(limit=1_000, seconds=60),  # for each person: identity or user_id
}
ALL_PERMISSIONS: frozenset[Permission] = frozenset(get_args(Permission))


class Settings(Strict):
    """Keys, permissions, limits and how reads behave; a change names only what changes.

    :param export_delay: seconds until a segment export that starts from now on is ready.
    :param export_users_per_file: most users in one file of a segment export.
    :param export_folder: a folder on this machine that stands for the customer's bucket; None: an export is
        one archive behind a URL.
    :param read_lag: exports show cohorts and attributes as they were so many seconds ago; what changed before
        there was a lag shows at once.
    """

    rest_api_key: str = connections.REST_API_KEY
    permissions: frozenset[Permission] = ALL_PERMISSIONS
    partner_name: str = connections.PARTNER_NAME
    partner_api_key: str = connections.PARTNER_API_KEY
    data_import_key: str = connections.DATA_IMPORT_KEY
    heap_app_id: str = connections.HEAP_APP_ID
    heap_api_key: str = connections.HEAP_API_KEY
    limits: dict[Group, Limit] = DEFAULT_LIMITS
    attributes_per_request: int = Field(default=75, ge=1)
    export_delay: float = Field(default=0.0, ge=0)
    export_users_per_file: int = Field(default=5000, ge=1)
    export_folder: str | None = None
    read_lag: float = Field(default=0.0, ge=0)

    def changed_by(self, change: Settings) -> Settings:
        """Return these settings with what the change names."""
        named = {name: getattr(change, name) for name in change.model_fields_set}
        return self.model_copy(update={**named, "limits": {**self.limits, **named.get("limits", {})}})


class NextFault(Strict):
    """What happens to the next requests, exactly: a kind of fault, or an answer with this status.

    :param count: to how many requests.
    :param endpoint: to requests of this endpoint; None is any.
    :param status: the answer's status, with ``headers`` and a JSON ``body``.
    :param applied: whether the request takes effect all the same (with ``status``).
    """

    count: int = Field(default=1, ge=1)
    endpoint: EndpointName | None = None
    kind: FaultKind | None = None
    status: int | None = Field(default=None, ge=200, le=599)
    applied: bool = False
    headers: dict[str, str] = {}
    body: Any = None

    @model_validator(mode="after")
    def _one_of_both(self) -> Self:
        if (self.kind is None) == (self.status is None):
            raise ValueError("give either a kind or a status")
        return self


class Faults(Strict):
    """Everything that goes wrong, and how often; a new one replaces the old one as a whole.

    :param seed: the same seed and the same order of requests give the same faults.
    :param endpoints: only requests of these endpoints meet ``rates``, latency and slowness; None is all.
    :param rates: kind of fault to the share of requests that meet it.
    :param wait: seconds that a 429 tells to wait; headers carry whole seconds, rounded up.
    :param lock_overlapping: 423 for a request of a cohort while another one of it is under way.
    :param latency: seconds that every answer takes.
    :param slow_share: share of requests that take ``slow_seconds`` more.
    :param poison: external ids that Braze refuses: 400 for the whole cohort request, an error for the row in
        ``/users/track``; and identities and idempotency keys that Heap refuses: 400 for the whole request to
        ``/api/track``.
    :param next: exact faults, used up in their order before ``rates`` are looked at.
    """

    seed: int = 0
    endpoints: frozenset[EndpointName] | None = None
    rates: dict[FaultKind, float] = {}
    wait: float = Field(default=1.0, ge=0)
    lock_overlapping: bool = False
    latency: float = Field(default=0.0, ge=0)
    slow_share: float = Field(default=0.0, ge=0, le=1)
    slow_seconds: float = Field(default=0.0, ge=0)
    poison: frozenset[str] = frozenset()
    next: list[NextFault] = []

    @model_validator(mode="after")
    def _shares_of_one(self) -> Self:
        if any(rate < 0 for rate in self.rates.values()) or sum(self.rates.values()) > 1 + 1e-9:
            raise ValueError("rates are shares of all requests: none below 0, together 1 at most")
        return self


class Alias(Strict):
    """A user alias."""

    alias_name: str
    alias_label: str


class NewUser(Strict):
    """A user in Braze.

    :param identified: None: identified if there is an external id or an alias.

    A user whom an external id, an alias or (anonymous) a device id already names gets what is new: so an
    anonymous user is identified by adding an external id with one of its device ids.
    """

    external_id: str | None = None
    aliases: list[Alias] = []
    device_ids: list[str] = []
    identified: bool | None = None

    @model_validator(mode="after")
    def _possible(self) -> Self:
        if self.external_id is not None and self.identified is False:
            raise ValueError("a user with an external id is identified")
        if self.external_id is None and not self.aliases and not self.device_ids:
            raise ValueError("a user needs an external id, an alias or a device id")
        return self


class NewUsers(Strict):
    """Users to add: single ones, and ``count`` numbered ones: ``user-0``, ``user-1``, ….

    :param first: the first number.
    :param prefix: of external ids; None: users without an external id.
    :param alias_label: gives every numbered user an alias ``<alias_prefix><number>`` with this label.
    :param device_prefix: gives every numbered user a device id ``<device_prefix><number>``.
    """

    users: list[NewUser] = []
    count: int = Field(default=0, ge=0)
    first: int = 0
    prefix: str | None = "user-"
    alias_label: str | None = None
    alias_prefix: str = "alias-"
    device_prefix: str | None = None

    @model_validator(mode="after")
    def _known_by_something(self) -> Self:
        if self.prefix is None and self.alias_label is None and self.device_prefix is None:
            raise ValueError("users need a prefix, an alias label or a device prefix")
        return self


class Segment(Strict):
    """A segment in Braze: what is told of it, and who is in it.

    :param id: names a folder of its exports, too.
    :param cohort_id: its users are those in this cohort.
    :param attribute: its users are those who have this custom attribute with the value ``attribute_value``;
        an array has each of its items. With neither a cohort nor an attribute everybody is in it, as in a
        segment without filters.
    :param sizes: of past days, the oldest first, the last one yesterday's.
    """

    id: str = Field(pattern=r"^[A-Za-z0-9_-]+$")
    name: str
    description: str = ""
    analytics_tracking_enabled: bool = False
    tags: list[str] = []
    created_at: str = "2026-01-01T00:00:00.000Z"
    updated_at: str = "2026-01-01T00:00:00.000Z"
    cohort_id: str | None = None
    attribute: str | None = None
    attribute_value: Any = True
    sizes: list[int] = []

    @model_validator(mode="after")
    def _one_filter(self) -> Self:
        if self.cohort_id is not None and self.attribute is not None:
            raise ValueError("give either a cohort_id or an attribute")
        return self


class NewSegments(Strict):
    """Segments to add."""

    segments: list[Segment]
