"""Which of some identifiers Braze knows, asked fifty at a time (Braze: Export users by identifier)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

from airflow_provider_heapbraze.clients.braze_reads import PROFILES_PER_REQUEST
from airflow_provider_heapbraze.clients.errors import UnclearAnswerError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from airflow_provider_heapbraze.clients.braze_reads import BrazeReads

T = TypeVar("T")

# Kinds of identifiers by which Braze can be asked for many people at once.
KINDS = ("external_id", "alias")
Identifier = tuple[str, str, str]  # kind, value, label


@dataclass(frozen=True)
class Found:
    """Somebody whom Braze knows; the repr shows nobody.

    :param attributes: the custom attributes, where they were asked for.
    """

    attributes: Mapping[str, Any] = field(repr=False)


def look_up(
    reads: BrazeReads, identifiers: Sequence[Identifier], *, attributes: bool = False
) -> dict[Identifier, Found]:
    """Return those whom Braze knows.

    :param identifiers: of the kinds ``external_id`` and ``alias``.
    :param attributes: bring the custom attributes along.
    :raises UnclearAnswerError: a profile is not what Braze documents.
    :raises HeapBrazeError: as :meth:`BrazeReads.profiles`.
    """
    fields = ["external_id", "user_aliases", *(["custom_attributes"] if attributes else [])]
    found: dict[Identifier, Found] = {}
    for start in range(0, len(identifiers), PROFILES_PER_REQUEST):
        asked = identifiers[start : start + PROFILES_PER_REQUEST]
        profiles = reads.profiles(
            [value for kind, value, _ in asked if kind == "external_id"],
            [(value, label) for kind, value, label in asked if kind == "alias"],
            fields,
        )
        for profile in profiles:
            person = Found(_field(profile, "custom_attributes", dict))
            found.update(dict.fromkeys(_identifiers(profile), person))
    return {identifier: found[identifier] for identifier in identifiers if identifier in found}


def _identifiers(profile: Mapping[str, Any]) -> Iterator[Identifier]:
    external_id = profile.get("external_id")
    if isinstance(external_id, str):
        yield "external_id", external_id, ""
    for alias in _field(profile, "user_aliases", list):
        if not isinstance(alias, dict):
            raise _unclear("user_aliases")
        yield "alias", str(alias.get("alias_name")), str(alias.get("alias_label"))


def _field(profile: Mapping[str, Any], name: str, kind: type[T]) -> T:
    """Return a field; Braze leaves out what is empty."""
    value = profile.get(name) or kind()
    if not isinstance(value, kind):
        raise _unclear(name)
    return value


def _unclear(name: str) -> UnclearAnswerError:
    return UnclearAnswerError(f"Braze profiles answered with {name} that are not what Braze documents.")
