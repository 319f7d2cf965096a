"""See the module of the same name beside this folder."""

from __future__ import annotations

from tests.unit.membership.test_recovery import *  # noqa: F403

# Here the table tells what the file told.
del test_a_plan_that_nobody_can_read_is_told_of  # noqa: F821
