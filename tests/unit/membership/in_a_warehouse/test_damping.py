"""See the module of the same name beside this folder."""

from __future__ import annotations

from tests.unit.membership.test_damping import *  # noqa: F403
