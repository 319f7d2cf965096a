"""Which of some identifiers Braze knows, asked fifty at a time (Braze: Export users by identifier)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

from airflow_provider_heapbraze.clients.braze_reads import PROFILES_PER_REQUEST
from airflow_provider_heapbraze.clients.errors import UnclearAnswerError

if TYPE_CHECKING:
    from collections.abc import Container, Iterator, Mapping, Sequence

    from airflow_provider_heapbraze.clients.braze_reads import BrazeReads, Profiles

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
    :raises UnclearAnswerError: a profile is not what Braze documents; or Braze says nothing of somebody who
        was asked for, which does not mean that nobody is.
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
        for profile in profiles.users:
            person, known_by = Found(_field(profile, "custom_attributes", dict)), set(_identifiers(profile))
            if known_by.isdisjoint(asked):
                raise UnclearAnswerError("Braze profiles answered with somebody who was not asked for.")
            found.update(dict.fromkeys(known_by, person))
        _check_answered(asked, found, profiles)
    return {identifier: found[identifier] for identifier in identifiers if identifier in found}


def _check_answered(asked: Sequence[Identifier], found: Container[Identifier], profiles: Profiles) -> None:
    """Make sure that every external id is somebody's or said to be nobody's; of aliases Braze says nothing.

    :raises UnclearAnswerError: it is not.
    """
    silent = sum(
        kind == "external_id" and (kind, value, label) not in found and value not in profiles.unknown
        for kind, value, label in asked
    )
    if silent:
        raise UnclearAnswerError(
            f"Braze profiles says nothing of {silent} of {len(asked)} people who were asked for. Nothing was "
            "concluded from that; a later try may know."
        )


def _identifiers(profile: Mapping[str, Any]) -> Iterator[Identifier]:
    external_id = profile.get("external_id")
    if isinstance(external_id, (str, int)):
        yield "external_id", str(external_id), ""
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
