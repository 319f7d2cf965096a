"""Templates become HTML; whatever is put into them is text, and shown as such."""

from __future__ import annotations

from contextlib import suppress
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jinja2 import Environment, FileSystemBytecodeCache, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from airflow_provider_heapbraze.pages import charts, waterfall

if TYPE_CHECKING:
    from jinja2 import BytecodeCache
    from jinja2.bccache import Bucket

NONE = "–"  # noqa: RUF001 - a dash
HERE = Path(__file__).parent
STATIC = HERE / "static"


def render(template: str, **values: Any) -> str:
    """Return a page.

    :param template: name of a file in ``templates``.
    """
    return _environment().get_template(template).render(**values)


@cache
def style() -> Markup:
    """Return the style sheet, to be put into a page that stands alone."""
    return Markup((STATIC / "page.css").read_text())  # noqa: S704 - it is ours


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(HERE / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        bytecode_cache=_compiled_before(),
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(
        number=number, without_scheme=without_scheme, percent=percent, when=when, ago=ago
    )
    environment.globals.update(charts=charts, waterfall=waterfall, style=style)
    return environment


class _Compiled(FileSystemBytecodeCache):
    """Jinja's folder of compiled templates, so that not every task compiles them; it may go at any moment."""

    def dump_bytecode(self, bucket: Bucket) -> None:
        """Keep a template, where that can be."""
        with suppress(OSError):
            super().dump_bytecode(bucket)


def _compiled_before() -> BytecodeCache | None:
    """Return what was compiled before; None where it has no place."""
    try:
        return _Compiled()
    except (OSError, RuntimeError):  # no place for temporary files, or one that others may write to
        return None


def number(value: float | None) -> str:
    """Return a number for people; a dash for none."""
    return NONE if value is None else f"{value:,.0f}"


def without_scheme(host: str) -> str:
    """Return a host as people say it."""
    return host.removeprefix("https://")


def percent(share: float | None) -> str:
    """Return a share as per cent; what is less than all is never shown as all, nor a little as nothing."""
    if share is None:
        return NONE
    shown = f"{share:.1%}"
    if shown == "100.0%" and share < 1:
        return "> 99.9%"
    if shown == "0.0%" and share > 0:
        return "< 0.1%"
    return shown.replace(".0%", "%")


def when(at: str) -> str:
    """Return a time, ISO 8601, for people: to the minute, UTC."""
    return f"{datetime.fromisoformat(at).astimezone(UTC):%Y-%m-%d %H:%M} UTC" if at else NONE


def ago(at: str) -> str:
    """Return how long ago that was, roughly."""
    if not at:
        return ""
    seconds = (datetime.now(UTC) - datetime.fromisoformat(at)).total_seconds()
    for unit, name in ((86_400, "day"), (3600, "hour"), (60, "minute")):
        if seconds >= unit:
            count = int(seconds // unit)
            return f"{count:,} {name}{'' if count == 1 else 's'} ago"
    return "just now"
