"""What a value of any column type is as an identifier: its text, or why it cannot be one.

In DuckDB's SQL; what a column in a warehouse may be is few types, whose text is the same everywhere.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

# What Python's str.strip() takes for white space; DuckDB's trim() alone takes only the space.
WHITE_SPACE = "".join(filter(str.isspace, map(chr, range(0x3001))))
MOST_BYTES = 987  # Braze: "external_id must be fewer than 988 bytes"

# From here on a floating point number stands for several whole ones: the id that it was is gone.
FIRST_IMPRECISE_FLOAT, FIRST_IMPRECISE_DOUBLE = 2**24, 2**53

# The bytes of a text in UTF-8, as hexadecimal digits.
_TEXT_IN_HEX = (
    "([0-7].|(C[2-9A-F]|D.)[89AB].|E0[AB].[89AB].|E[1-9A-CEF]([89AB].){2}|ED[89].[89AB].|"
    "F0[9AB].([89AB].){2}|F[1-3]([89AB].){3}|F48.([89AB].){2})*"
)
SPACES = "".join(f"\\x{{{ord(space):x}}}" for space in WHITE_SPACE)
_JSON_TEXT = "({0} ->> '$')"
_JSON_FRACTION = f"(json_type({{0}}) = 'DOUBLE' AND NOT regexp_full_match({_JSON_TEXT}, '-?[0-9]+'))"

# Blank, zero and the usual words for no; everything else, a date of identification too, is a yes.
SAYS_YES = (
    "coalesce(lower({0}) NOT IN ('false', 'f', 'no', 'n', 'null', 'none', 'nan', 'nat') "
    "AND NOT regexp_matches(lower({0}), '^[+-]?(0+[.]?0*|[.]0+)(e[+-]?[0-9]+)?$'), false)"
)

MACROS = f"""
    -- trim() builds its list of characters anew for every value: only where there is something to trim.
    CREATE TEMP MACRO trimmed(v) AS
        CASE WHEN regexp_matches(v, '^[{SPACES}]|[{SPACES}]$') THEN trim(v, '{WHITE_SPACE}') ELSE v END;

    -- A whole number has no fraction and no exponent.
    CREATE TEMP MACRO number_text(v) AS
        CASE WHEN isnan(v) THEN 'nan'
            WHEN v = trunc(v) AND abs(v) < 1e18 THEN CAST(CAST(v AS BIGINT) AS VARCHAR)
            ELSE CAST(v AS VARCHAR) END;
    CREATE TEMP MACRO number_problem(v, first_imprecise) AS
        CASE WHEN NOT isfinite(v) THEN 'not_finite' WHEN abs(v) >= first_imprecise THEN 'imprecise' END;

    -- DuckDB writes a half as .50 in a column without digits before the point, else as 0.50.
    CREATE TEMP MACRO decimal_text(v) AS regexp_replace(
        regexp_replace(CAST(v AS VARCHAR), '^(-?)\\.', '\\10.'), '\\.0*$|(\\.[0-9]*[1-9])0+$', '\\1');

    -- TRY(decode(…)) would say it shorter, but DuckDB 1.4.1 gets it wrong beside NULLs.
    CREATE TEMP MACRO is_text(v) AS regexp_full_match(hex(v), '{_TEXT_IN_HEX}');
    CREATE TEMP MACRO bytes_text(v) AS CASE WHEN is_text(v) THEN decode(v) END;
    CREATE TEMP MACRO bytes_problem(v) AS CASE WHEN NOT is_text(v) THEN 'not_text' END;

    CREATE TEMP MACRO size_in_bytes(v) AS strlen(v);
    CREATE TEMP MACRO says_yes(v) AS {SAYS_YES.format("v")};
"""


@dataclass(frozen=True)
class Reading:
    """How the values of a column are read: SQL in which ``{0}`` stands for the column.

    :param text: the value as text, not yet trimmed; NULL where there is none.
    :param problem: why the value cannot be used: ``not_finite``, ``imprecise``, ``nested`` or ``not_text``;
        else NULL.
    :param raw: the value for a person to look at.
    """

    text: str
    problem: str = "NULL::VARCHAR"
    raw: str = "CAST({0} AS VARCHAR)"


PLAIN = Reading("CAST({0} AS VARCHAR)")
NESTED = Reading("NULL::VARCHAR", "CASE WHEN {0} IS NOT NULL THEN 'nested' END")
READINGS = {
    "DECIMAL": Reading("decimal_text({0})"),
    "FLOAT": Reading("number_text({0})", f"number_problem({{0}}, {FIRST_IMPRECISE_FLOAT})"),
    "DOUBLE": Reading("number_text({0})", f"number_problem({{0}}, {FIRST_IMPRECISE_DOUBLE})"),
    "BLOB": Reading("bytes_text({0})", "bytes_problem({0})"),
    "STRUCT": NESTED,
    "MAP": NESTED,
    "UNION": NESTED,
    "VARIANT": NESTED,
    "JSON": Reading(
        f"CASE WHEN {_JSON_FRACTION} THEN number_text(TRY_CAST({_JSON_TEXT} AS DOUBLE)) "
        f"WHEN json_type({{0}}) NOT IN ('OBJECT', 'ARRAY') THEN {_JSON_TEXT} END",
        f"CASE WHEN {_JSON_FRACTION} "
        f"THEN number_problem(TRY_CAST({_JSON_TEXT} AS DOUBLE), {FIRST_IMPRECISE_DOUBLE}) "
        "WHEN json_type({0}) IN ('OBJECT', 'ARRAY') THEN 'nested' END",
        _JSON_TEXT,
    ),
}


# Types whose text no two databases write differently.
IN_A_WAREHOUSE = {
    "text": Reading("by_bytes(CAST({0} AS VARCHAR))", raw="by_bytes(CAST({0} AS VARCHAR))"),
    "whole number": PLAIN,
    "true or false": Reading(
        "CASE WHEN {0} THEN 'true' WHEN NOT {0} THEN 'false' END",
        raw="CASE WHEN {0} THEN 'true' WHEN NOT {0} THEN 'false' END",
    ),
}


def reading(column_type: str) -> Reading:
    """Return how the values of a column are read.

    :param column_type: DuckDB's name of its type, for example ``VARCHAR`` or ``DECIMAL(18,2)``.
    """
    if column_type.endswith("]"):
        return NESTED
    name = re.match(r"\w*", column_type)
    return READINGS.get(name[0] if name else "", PLAIN)
