"""Values as Heap takes them: numbers and texts of fewer than 1,024 characters (Heap: Track)."""

from __future__ import annotations

import json
import math
from datetime import date, datetime, time
from typing import Any

import msgspec

# Heap counts what "characters" are nowhere: in UTF-16 units, as its servers' language does, is the safe way.
MOST_UNITS = 1023
SURELY_SHORT = MOST_UNITS // 2
# From here on a number may stand for several whole ones: Heap's servers know no integers.
FIRST_IMPRECISE = 2**53
DEEPEST = 32
BETWEEN_ITEMS = "||"
TOO_DEEP = "(nested too deeply)"

Value = int | float | str


class Properties(msgspec.Struct):
    """The properties of one event, while they are put together.

    :param values: what Heap gets.
    :param cuts: how many names and values were cut.
    """

    values: dict[str, Value] = {}  # of each its own: a struct copies it
    cuts: int = 0

    def put(self, name: str, value: Any, depth: int = 0) -> None:
        """Add a field: a nested object by dotted names, a list joined; nothing where it is null."""
        if type(value) is str and len(value) <= SURELY_SHORT and len(name) <= SURELY_SHORT:
            self.values[name] = value
            return
        if isinstance(value, dict) and depth < DEEPEST:
            for key, item in value.items():
                self.put(f"{name}.{key}", item, depth + 1)
            return
        plain = value if isinstance(value, str) else _plain(value)
        if plain is not None:
            self.values[self._cut(name)] = self._cut(plain) if isinstance(plain, str) else plain

    def _cut(self, text: str) -> str:
        if len(text) <= SURELY_SHORT:
            return text
        short = cut(text)
        if short is not text:
            self.cuts += 1
        return short


def cut(text: str, most: int = MOST_UNITS) -> str:
    """Return a text of at most so many characters; the text itself where it is short enough."""
    if len(text) * 2 <= most:
        return text
    encoded = text.encode("utf-16-le", errors="surrogatepass")
    if len(encoded) <= 2 * most:
        return text
    return encoded[: 2 * most].decode("utf-16-le", errors="ignore")


def as_text(value: Any) -> str:
    """Return any value as one text."""
    if isinstance(value, str):
        return value
    plain = _plain(value)
    return "" if plain is None else str(plain)


def _plain(value: Any) -> Value | None:
    """Return a value that is no text as a number or a text; None where it says nothing."""
    if isinstance(value, (bool, int, float)):
        return _number(value)
    if isinstance(value, (list, tuple)):
        return _joined(value)
    if isinstance(value, dict):
        return _json(value)
    if isinstance(value, (bytes, bytearray)):
        return value.decode(errors="replace")
    return value if value is None else _spelt_out(value)


def _number(value: bool | float) -> Value | None:  # noqa: FBT001 - it is the value
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return value if -FIRST_IMPRECISE < value < FIRST_IMPRECISE else str(value)
    return value if math.isfinite(value) else None


def _spelt_out(value: Any) -> str:
    """Return what Avro's logical types hold: times, decimals, UUIDs."""
    return value.isoformat() if isinstance(value, (datetime, date, time)) else str(value)


def _joined(items: list[Any] | tuple[Any, ...], depth: int = 0) -> str:
    return BETWEEN_ITEMS.join(_item(item, depth) for item in items if item is not None)


def _item(value: Any, depth: int) -> str:
    if isinstance(value, (list, tuple)) and depth < DEEPEST:
        return _joined(value, depth + 1)
    return _json(value) if isinstance(value, (list, tuple, dict)) else as_text(value)


def _json(value: Any) -> str:
    try:
        return msgspec.json.encode(value, enc_hook=str).decode()
    except (UnicodeEncodeError, msgspec.MsgspecError, TypeError):
        pass
    except RecursionError:
        return TOO_DEEP
    try:
        return json.dumps(value, default=str)  # takes half a character, as some clients leave it
    except (RecursionError, TypeError):
        return TOO_DEEP
