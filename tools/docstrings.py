"""Docstrings as the documentation shows them: in Markdown, and with the arguments that a class inherits.

Loaded by griffe, which reads the package's source and imports nothing of it.
"""

from __future__ import annotations

import re
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from griffe import Class, Extension, Parameter, ParameterKind, Parameters

if TYPE_CHECKING:
    from collections.abc import Iterator

    from griffe import Module, Object

ROLE = re.compile(r":(?:attr|class|func|meth|mod):`~?(?:[\w.]*\.)?(\w+)`")
BORDER = re.compile(r"=+( +=+)+")


class Docstrings(Extension):
    """Mend what griffe has read, once all of it is there."""

    def on_package(self, *, pkg: Module, **_: Any) -> None:
        """Mend every docstring, and the signature of every class."""
        for thing in _everything(pkg):
            if thing.docstring:
                thing.docstring.value = as_markdown(thing.docstring.value)
            if isinstance(thing, Class) and "__init__" in thing.members:
                thing.members["__init__"].parameters = Parameters(*_all_parameters(thing))


def as_markdown(text: str) -> str:
    """Return a docstring without Sphinx's own forms: roles, literal blocks and tables."""
    text = re.sub(r"::$", ":", ROLE.sub(r"`\1`", text), flags=re.MULTILINE)
    lines = re.sub(r"^:$\n", "", text, flags=re.MULTILINE).splitlines()
    borders = [number for number, line in enumerate(lines) if BORDER.fullmatch(line)]
    for top, middle, bottom in reversed(list(zip(borders[::3], borders[1::3], borders[2::3], strict=True))):
        lines[top : bottom + 1] = _table(lines[top], lines[top + 1 : middle], lines[middle + 1 : bottom])
    return "\n".join(lines)


def _table(border: str, head: list[str], body: list[str]) -> Iterator[str]:
    starts = [column.start() for column in re.finditer("=+", border)]
    rows: list[list[str]] = []
    for line in head + body:
        cells = [line[start:end].strip() for start, end in pairwise([*starts, None])]
        if rows and not cells[0]:
            rows[-1] = [f"{above} {more}".strip() for above, more in zip(rows[-1], cells, strict=True)]
        else:
            rows.append(cells)
    rows.insert(1, ["---"] * len(starts))
    yield from (f"| {' | '.join(row)} |" for row in rows)


def _all_parameters(cls: Class) -> list[Parameter]:
    """Return a class's own arguments, then those that its bases in this package take for it."""
    found: dict[str, Parameter] = {}
    for owner in [cls, *_bases(cls)]:
        if "__init__" in owner.members:
            for parameter in owner.members["__init__"].parameters:
                found.setdefault(parameter.name, parameter)
    return sorted(found.values(), key=lambda parameter: parameter.kind is ParameterKind.var_keyword)


def _bases(cls: Class) -> Iterator[Class]:
    for base in cls.resolved_bases:
        if isinstance(base, Class):
            yield base
            yield from _bases(base)


def _everything(thing: Object) -> Iterator[Object]:
    yield thing
    for member in thing.members.values():
        if not member.is_alias:
            yield from _everything(member)
