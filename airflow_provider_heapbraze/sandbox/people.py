"""Braze's users, and who answers to which identifier."""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from airflow_provider_heapbraze.sandbox.models import NewUsers

Alias = tuple[str, str]  # name, label


class User:
    """A user profile; identity is what makes two of them equal."""

    __slots__ = ("_braze_id", "aliases", "device_ids", "external_id", "identified")

    def __init__(self, external_id: str | None) -> None:
        self.external_id = external_id
        self.aliases: tuple[Alias, ...] = ()
        self.device_ids: tuple[str, ...] = ()
        self.identified = False
        self._braze_id: str | None = None

    @property
    def braze_id(self) -> str:
        """Braze's own id; made when it is first asked for, then the same."""
        if self._braze_id is None:
            self._braze_id = secrets.token_hex(12)
        return self._braze_id

    @property
    def shown_as(self) -> str:
        """The external id, else the first alias, else the first device id."""
        if self.external_id is not None:
            return self.external_id
        if self.aliases:
            name, label = self.aliases[0]
            return f"alias:{label}/{name}"
        return f"device:{self.device_ids[0]}"


class People:
    """All users of the workspace."""

    def __init__(self) -> None:
        self.users: set[User] = set()
        self.by_external_id: dict[str, User] = {}
        self.by_alias: dict[Alias, User] = {}
        self.by_device: dict[str, User] = {}

    def anonymous_on(self, device_id: str) -> User | None:
        """Return the user that a device id matches: nobody but an anonymous one (Braze: User matching)."""
        user = self.by_device.get(device_id)
        return None if user is None or user.identified else user

    def add(self, new: NewUsers) -> None:
        """Add users, or add to those whom an identifier already names.

        :raises ValueError: an alias belongs to somebody else; those before it are added.
        """
        for user in new.users:
            aliases = [(alias.alias_name, alias.alias_label) for alias in user.aliases]
            known = user.external_id is not None or bool(aliases)
            identified = known if user.identified is None else user.identified
            self._put(user.external_id, aliases, user.device_ids, identified=identified)
        identified = new.prefix is not None or new.alias_label is not None
        for number in range(new.first, new.first + new.count):
            self._put(
                None if new.prefix is None else f"{new.prefix}{number}",
                () if new.alias_label is None else ((f"{new.alias_prefix}{number}", new.alias_label),),
                () if new.device_prefix is None else (f"{new.device_prefix}{number}",),
                identified=identified,
            )

    def create(self, external_id: str | None, alias: Alias | None) -> User:
        """Create the user whom ``/users/track`` names and Braze does not know."""
        return self._put(external_id, () if alias is None else (alias,), (), identified=True)

    def _put(
        self,
        external_id: str | None,
        aliases: Sequence[Alias],
        device_ids: Sequence[str],
        *,
        identified: bool,
    ) -> User:
        user = self._known(external_id, aliases, device_ids)
        if user is None:
            user = User(external_id)
            self.users.add(user)
        elif external_id is not None and user.external_id not in (None, external_id):
            raise ValueError("an alias belongs to one user")
        user.identified = user.identified or identified
        if external_id is not None:
            user.external_id = external_id
            self.by_external_id[external_id] = user
        for alias in aliases:
            if self.by_alias.setdefault(alias, user) is not user:
                raise ValueError("an alias belongs to one user")
            if alias not in user.aliases:
                user.aliases += (alias,)
        for device_id in device_ids:
            self.by_device[device_id] = user
            if device_id not in user.device_ids:
                user.device_ids += (device_id,)
        return user

    def _known(
        self, external_id: str | None, aliases: Iterable[Alias], device_ids: Iterable[str]
    ) -> User | None:
        if external_id is not None and external_id in self.by_external_id:
            return self.by_external_id[external_id]
        for alias in aliases:
            if alias in self.by_alias:
                return self.by_alias[alias]
        for device_id in device_ids:
            if (user := self.anonymous_on(device_id)) is not None:
                return user
        return None
