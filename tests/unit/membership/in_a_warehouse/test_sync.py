"""See the module of the same name beside this folder."""

from __future__ import annotations

from tests.unit.membership.test_sync import *  # noqa: F403
