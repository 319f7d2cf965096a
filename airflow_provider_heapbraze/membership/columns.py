"""Columns of Python values and of Arrow, as databases give them, on their way to DuckDB."""

from __future__ import annotations

import json
import math
from datetime import date, datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pyarrow as pa

# A column that has one of these types, and no other, keeps it.
KEPT_TYPES = {str, bool, int, float, Decimal, date, datetime}
TEXT_TYPES = (str, bytes, bytearray, memoryview)


def column(values: Sequence[Any]) -> tuple[pa.Array, bool]:
    """Return the values as an Arrow array, and whether it is JSON.

    A column of one type keeps it, and texts and bytes together are bytes. Any other column is JSON, value by
    value: left to itself, Arrow would turn a ``True`` among numbers into a 1, and a time among dates into a
    date.
    """
    import pyarrow as pa

    types = {type(value) for value in values if value is not None}
    kept = None
    if types <= {str}:
        kept = _texts(values)
    elif types <= set(TEXT_TYPES):
        kept = pa.array(map(_bytes, values), pa.binary())
    elif len(types) == 1 and types <= KEPT_TYPES:
        kept = _kept(values)
    if kept is not None:
        return kept, False
    return pa.array(map(_json, values), pa.string()), True


def arrow_column(array: pa.ChunkedArray) -> tuple[pa.Array, bool]:
    """Return an array that DuckDB can read, and whether it is JSON.

    Arrow's types are DuckDB's, but for two: numbers with too many digits, and with too few.
    """
    import pyarrow as pa

    if pa.types.is_decimal256(array.type) or pa.types.is_float16(array.type):
        return column(array.to_pylist())
    return array, False


def _texts(values: Sequence[str | None]) -> pa.Array:
    import pyarrow as pa

    try:
        return pa.array(values, pa.string())
    except UnicodeEncodeError:
        return pa.array(map(_bytes, values), pa.binary())  # half a character; its bytes will tell


def _kept(values: Sequence[Any]) -> pa.Array | None:
    """Return an array, or None where a number has more digits than Arrow or DuckDB can hold."""
    import pyarrow as pa

    try:
        array = pa.array(values)
    except (OverflowError, TypeError, ValueError):
        return None
    return None if pa.types.is_decimal256(array.type) else array


def _bytes(value: str | bytes | bytearray | memoryview | None) -> bytes | None:
    if value is None:
        return None
    return value.encode(errors="surrogatepass") if isinstance(value, str) else bytes(value)


def _json(value: Any) -> str | None:
    return None if value is None else json.dumps(_plain(value))


def _plain(value: Any) -> bool | float | str | list[str]:
    """Say with JSON's types what a value is; what cannot be an identifier becomes a list."""
    if isinstance(value, (bool, int, float)):
        return value
    if isinstance(value, Decimal):
        return _number(value)
    if isinstance(value, (dict, list, tuple, set, frozenset)):
        return [str(value)]
    text = _bytes(value) if isinstance(value, TEXT_TYPES) else str(value).encode(errors="replace")
    try:
        return (text or b"").decode()
    except UnicodeDecodeError:
        return [str(text)]


def _number(value: Decimal) -> float | str:
    """Keep every digit: JSON's numbers with a fraction are floating point."""
    if not value.is_finite():
        return math.nan
    return int(value) if value == value.to_integral_value() else f"{value:f}".rstrip("0")
