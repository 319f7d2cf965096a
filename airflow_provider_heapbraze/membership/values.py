"""What a value of any column type is as an identifier: its text, and what is wrong with it."""

from __future__ import annotations

import re

# What Python's str.strip() takes for white space; DuckDB's trim() alone takes only the space.
WHITE_SPACE = (
    "\t\n\x0b\x0c\r\x1c\x1d\x1e\x1f \x85\xa0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007"
    "\u2008\u2009\u200a\u2028\u2029\u202f\u205f\u3000"
)
MOST_BYTES = 987  # Braze: Partner cohort import, external_id
FALSE = "('', 'false', 'f', 'no', 'n', 'null', 'none', 'nan', 'nat')"
WHOLE = r"^-?\d+$"
# From here on a floating point number stands for several whole ones: the id that it was is gone.
FIRST_IMPRECISE = {"FLOAT": 2**24, "DOUBLE": 2**53}


def text_and_problem(column: str | None, kind: str) -> tuple[str, str]:
    """Return SQL for a value's text, and for its problem.

    The problem is empty text where there is none, else ``blank``, ``not_finite``, ``imprecise``, ``nested``
    or ``too_long``.

    :param column: the column's name; None where nothing is mapped, which is blank.
    :param kind: the column's DuckDB type.
    """
    if column is None:
        return "NULL::VARCHAR", "'blank'"
    name = identifier(column)
    text = f"trim({_text(name, kind)}, {_white_space()})"
    problem = (
        f"CASE WHEN {_is_nested(name, kind)} THEN 'nested' "
        f"WHEN {_is_not_finite(name, kind)} THEN 'not_finite' "
        f"WHEN {_is_imprecise(name, kind)} THEN 'imprecise' "
        f"WHEN coalesce({text}, '') = '' THEN 'blank' "
        f"WHEN strlen({text}) > {MOST_BYTES} THEN 'too_long' ELSE '' END"
    )
    return text, problem


def identified_expression(column: str, kind: str) -> str:
    """Return SQL that tells whether a value says "identified".

    Blank, zero and the usual words for no are not; everything else is, a date of identification too.
    """
    text = f"lower(coalesce(trim({_text(identifier(column), kind)}, {_white_space()}), ''))"
    return f"NOT ({text} IN {FALSE} OR coalesce(TRY_CAST({text} AS DOUBLE), 1) = 0)"


def _text(name: str, kind: str) -> str:
    if kind == "JSON":
        raw = f"({name}->>'$')"
        number = _whole_or_as_is(f"TRY_CAST({raw} AS DOUBLE)", raw)
        fraction = f"json_type({name}) = 'DOUBLE' AND NOT regexp_matches({raw}, '{WHOLE}')"
        return f"CASE WHEN {fraction} THEN {number} ELSE {raw} END"
    if kind in {"DOUBLE", "FLOAT"}:
        return _whole_or_as_is(name, f"CAST({name} AS VARCHAR)")
    if kind.startswith("DECIMAL"):
        return rf"regexp_replace(CAST({name} AS VARCHAR), '\.0+$', '')"
    if kind == "BLOB":
        return f"TRY(decode({name}))"
    return f"CAST({name} AS VARCHAR)"


def _whole_or_as_is(number: str, text: str) -> str:
    """Write a whole number without a fraction."""
    return (
        f"CASE WHEN {number} = trunc({number}) AND abs({number}) < {FIRST_IMPRECISE['DOUBLE']} "
        f"THEN CAST(TRY_CAST({number} AS BIGINT) AS VARCHAR) ELSE {text} END"
    )


def _is_nested(name: str, kind: str) -> str:
    if kind == "JSON":
        return f"coalesce(json_type({name}) IN ('OBJECT', 'ARRAY'), false)"
    nested = kind.endswith("]") or re.match(r"(STRUCT|MAP|UNION|VARIANT)\b", kind)
    return f"{name} IS NOT NULL" if nested else "false"


def _is_not_finite(name: str, kind: str) -> str:
    return f"NOT isfinite({name})" if kind in {"DOUBLE", "FLOAT"} else "false"


def _is_imprecise(name: str, kind: str) -> str:
    if kind in FIRST_IMPRECISE:
        return f"abs({name}) >= {FIRST_IMPRECISE[kind]}"
    if kind == "JSON":
        large = f"abs(TRY_CAST(({name}->>'$') AS DOUBLE)) >= {FIRST_IMPRECISE['DOUBLE']}"
        return f"coalesce(json_type({name}) = 'DOUBLE' AND {large}, false)"
    return "false"


def identifier(column: str) -> str:
    """Return a column's name as SQL."""
    return '"' + column.replace('"', '""') + '"'


def _white_space() -> str:
    return f"'{WHITE_SPACE}'"
