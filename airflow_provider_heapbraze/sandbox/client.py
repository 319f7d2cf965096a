"""The control API from a test's side: :class:`Sandbox` sets a sandbox up and asks what it holds."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import requests

from airflow_provider_heapbraze.sandbox import connections

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


class Sandbox:
    """A running sandbox. What its control API takes is in ``models``, what it gives in ``answers``.

    :param url: its address, for example ``http://127.0.0.1:8765``.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        self._session = requests.Session()
        self._session.trust_env = False  # no proxy is between this machine and itself

    def close(self) -> None:
        """Close the connection to the sandbox; the sandbox goes on."""
        self._session.close()

    def braze_connection(self) -> dict[str, Any]:
        """Return an Airflow connection of type ``braze`` that reaches it."""
        return connections.braze_connection(self.url)

    def heap_connection(self) -> dict[str, Any]:
        """Return an Airflow connection of type ``heap`` that reaches it."""
        return connections.heap_connection(self.url)

    def environment(self) -> dict[str, str]:
        """Return the environment variables that make both connections Airflow's defaults."""
        return connections.environment(self.url)

    def health(self) -> dict[str, Any]:
        """Say that it answers."""
        return self._get("health")

    def reset(self) -> None:
        """Forget everything; the sandbox is as it was when it started."""
        self._post("reset")

    def add_users(self, users: Sequence[Mapping[str, Any]] = (), **numbered: Any) -> dict[str, Any]:
        """Add users to Braze: single ones, and numbered ones, such as ``count=1000`` (``NewUsers``)."""
        counts: dict[str, Any] = self._post("users", {"users": [*users], **numbered})
        return counts

    def add_segments(self, segments: Sequence[Mapping[str, Any]]) -> None:
        """Add segments to Braze (``Segment``)."""
        self._post("segments", {"segments": [*segments]})

    def settings(self, **change: Any) -> None:
        """Change keys, permissions, limits and how reads behave (``Settings``); what is not named stays."""
        self._post("settings", change)

    def faults(self, **plan: Any) -> None:
        """Say what goes wrong from now on (``Faults``), in place of what was said before."""
        self._post("faults", plan)

    def state(self) -> dict[str, Any]:
        """Count everything."""
        return self._get("state")

    def cohort(self, cohort_id: str) -> dict[str, Any]:
        """Tell who is in a cohort, which in Braze nobody can."""
        return self._get(f"cohorts/{quote(cohort_id)}")

    def segment(self, segment_id: str) -> dict[str, Any]:
        """Tell who is in a segment at this moment, however far reads lag behind."""
        return self._get(f"segments/{quote(segment_id)}")

    def exports(self) -> list[dict[str, Any]]:
        """List the segment exports in the order of their start."""
        return self._list("exports")

    def attribute(self, name: str) -> dict[str, Any]:
        """Tell who has a custom attribute."""
        return self._get(f"attributes/{quote(name)}")

    def heap_events(self) -> list[dict[str, Any]]:
        """List Heap's events in the order of their arrival."""
        return self._list("heap/events")

    def heap_sends(self) -> dict[int, int]:
        """Count Heap's events by how often they were sent, whatever was answered."""
        return {int(times): events for times, events in self._get("heap/sends").items()}

    def heap_users(self) -> list[dict[str, Any]]:
        """List Heap's users in the order in which they came."""
        return self._list("heap/users")

    def requests(self, *, since: int = 0) -> list[dict[str, Any]]:
        """List what came in, after a sequence number."""
        return self._list(f"requests?since={since}")

    def _get(self, path: str) -> dict[str, Any]:
        answer: dict[str, Any] = self._answer("GET", path)
        return answer

    def _list(self, path: str) -> list[dict[str, Any]]:
        answer: list[dict[str, Any]] = self._answer("GET", path)
        return answer

    def _post(self, path: str, body: object = None) -> Any:
        return self._answer("POST", path, body)

    def _answer(self, method: str, path: str, body: object = None) -> Any:
        response = self._session.request(method, f"{self.url}/sandbox/{path}", json=body, timeout=60)
        if not response.ok:
            raise ValueError(f"the sandbox refuses {path} ({response.status_code}): {response.text}")
        return response.json() if response.content else None
