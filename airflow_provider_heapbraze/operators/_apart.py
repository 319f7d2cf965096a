"""Work in a thread of its own: what ends a task reaches the main thread alone."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor, wait
from contextvars import copy_context
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

Result = TypeVar("Result")


def apart(work: Callable[[], Result], stop: Callable[[], None]) -> Result:
    """Do some work, so that it ends in order whenever the task is to end.

    Airflow's ``execution_timeout`` is an exception that is raised in the main thread, wherever it is at that
    moment: it may be between an answer and its record. And a signal waits until the main thread is back from
    what takes long outside of Python. So the main thread does nothing but wait for the work.

    :param stop: asks the work to end soon; safe in a signal handler.
    :returns: what the work returns.
    :raises BaseException: what ended the wait, once the work has ended, with what the work said as its cause;
        or what the work raised.
    """
    with ThreadPoolExecutor(1, thread_name_prefix="run") as thread:
        done = thread.submit(copy_context().run, work)
        try:
            wait([done])
        except BaseException as cut:
            stop()
            raise cut from done.exception()
        return done.result()
