"""Who a member is on the other side: a Heap user in Braze, and a Braze user in Heap."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Protocol

from airflow_provider_heapbraze.clients.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from airflow_provider_heapbraze.membership.values import Reading

# What a column can be to the matching rule.
ROLES = ("external_id", "alias_name", "device_id", "identified")
# Kinds of identifiers that are a value alone; an alias has a label, too.
WITHOUT_LABEL = ("external_id", "device_id", "identity")
# Heap: Add user properties: "identity: case-sensitive string, at most 255 characters".
MOST_CHARACTERS = 255


class Matcher(Protocol):
    """How a member becomes one identifier on the other side; a dataclass, whose fields are kept on record.

    :param kinds: kinds of identifiers that it can give.
    :param roles: columns of the rule's result that keep the values of an unmatched member as they came.
    """

    kinds: ClassVar[tuple[str, ...]]
    roles: ClassVar[tuple[str, ...]]

    @property
    def label(self) -> str:
        """Return the label that every alias has which it gives."""

    def columns(self) -> dict[str, str]:
        """Return the column of every role that is mapped.

        :raises ConfigurationError: nothing can be matched that way.
        """

    def rule(self, members: str, cells: Mapping[str, str], readings: Mapping[str, Reading]) -> str:
        """Return the query that gives every member one identifier, or a reason; see :func:`.rule.rule`."""


@dataclass
class IdentityMapping:
    """Which column of a segment holds which identifier (Braze: Heap, user matching).

    An identified row is matched by external id, then alias, and never by device id. Another one is matched by
    external id, then device id, then alias. The first value that can be used is taken.

    :param external_id: column whose value is Braze's external id.
    :param alias_name: column whose value is the name of a user alias.
    :param alias_label: the label that all these aliases have; not a column.
    :param device_id: column with the device id.
    :param identified: column that tells whether a row is an identified user: blank, zero, ``false``, ``no``,
        ``null``, ``none`` and ``nan`` say no, and everything else says yes. Without it a row is one that has
        an external id (or, where none is mapped, an alias), usable or not; a number that is not finite is
        none.
    """

    template_fields: ClassVar[Sequence[str]] = (
        "external_id",
        "alias_name",
        "alias_label",
        "device_id",
        "identified",
    )

    kinds: ClassVar[tuple[str, ...]] = ("external_id", "alias", "device_id")
    roles: ClassVar[tuple[str, ...]] = ROLES

    external_id: str | None = "identity"
    alias_name: str | None = None
    alias_label: str | None = None
    device_id: str | None = None
    identified: str | None = None

    @property
    def label(self) -> str:
        """Return the label that every alias has."""
        return self.alias_label or ""

    def columns(self) -> dict[str, str]:
        """Return the column of every role that is mapped.

        :raises ConfigurationError: no identifier is mapped, or an alias without its label.
        """
        if not (self.external_id or self.alias_name or self.device_id):
            raise ConfigurationError(
                "IdentityMapping maps no identifier. Nothing was sent. Name the column of the external id, "
                "the alias or the device id."
            )
        if bool(self.alias_name) != bool((self.alias_label or "").strip()):
            raise ConfigurationError(
                "IdentityMapping has only one of alias_name and alias_label. Nothing was sent. Give both: "
                "the column with the alias, and the label that all of them have."
            )
        return {role: getattr(self, role) for role in ROLES if getattr(self, role)}

    def rule(self, members: str, cells: Mapping[str, str], readings: Mapping[str, Reading]) -> str:
        """Return the matching rule as a query; see :func:`.rule.rule`."""
        from airflow_provider_heapbraze.membership.rule import rule

        return rule(members, cells, readings)


@dataclass
class HeapIdentity:
    """Which of a Braze user's identifiers is the identity in Heap, taken exactly as it is.

    :param alias_label: the user's alias with this label; None takes the external id.
    """

    kinds: ClassVar[tuple[str, ...]] = ("identity",)
    roles: ClassVar[tuple[str, ...]] = ("identity",)
    label: ClassVar[str] = ""

    alias_label: str | None = None

    def columns(self) -> dict[str, str]:
        """Return the column of an export that holds the identity."""
        return {"identity": "external_id" if self.alias_label is None else "alias"}

    def rule(self, members: str, cells: Mapping[str, str], readings: Mapping[str, Reading]) -> str:  # noqa: ARG002 - an export's values are texts
        """Return the query that gives every member the identity; see :func:`.rule.rule` for its columns."""
        from airflow_provider_heapbraze.membership.values import SPACES

        return f"""
            WITH member AS (
                SELECT "row", {cells["identity"]} AS identity FROM ({members})
            ), judged AS (
                SELECT *, CASE
                    WHEN identity IS NULL OR regexp_full_match(identity, '[{SPACES}]*') THEN 'blank'
                    WHEN length(identity) > {MOST_CHARACTERS} THEN 'too_long'
                END AS reason FROM member
            )
            SELECT "row",
                CASE WHEN reason IS NULL THEN 'identity' END AS kind,
                CASE WHEN reason IS NULL THEN identity END AS "value",
                NULL::VARCHAR AS other_alias,
                NULL::VARCHAR AS other_device_id,
                reason,
                CASE WHEN reason IS NOT NULL THEN identity END AS identity
            FROM judged
        """
