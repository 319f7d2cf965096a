"""The matching rule a second time, row by row in plain Python: what the SQL is checked against."""

from __future__ import annotations

import math
from collections import Counter
from decimal import Decimal

NO = {"false", "f", "no", "n", "null", "none", "nan", "nat"}


def read(value):
    """Return (text, problem) of a value; both None where it is blank."""
    if isinstance(value, (dict, list)):
        return None, "nested"
    if isinstance(value, (float, Decimal)) and not Decimal(value).is_finite():
        return None, "not_finite"
    if isinstance(value, float) and abs(value) >= 2**53:
        return None, "imprecise"
    if isinstance(value, bytes):
        try:
            value = value.decode()
        except UnicodeDecodeError:
            return None, "not_text"
    text = as_text(value).strip()
    return text or None, "too_long" if len(text.encode()) > 987 else None


def as_text(value):
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return str(int(value)) if value.is_integer() else repr(value)
    if isinstance(value, Decimal) and value == int(value):
        return str(int(value))
    if isinstance(value, Decimal):
        return f"{value:f}".rstrip("0")
    return str(value)


def is_yes(value):
    if isinstance(value, float):
        return value != 0 and not math.isnan(value)
    if isinstance(value, Decimal) and not value.is_finite():
        return False
    text, problem = read(value)
    if text is None or text.lower() in NO:
        return problem is not None
    try:
        return float(text) != 0
    except ValueError:
        return True


def identify(cells, identified):
    """Return (kind, value, None), or (None, None, reason)."""
    order = ("external_id", "alias") if identified else ("external_id", "device_id", "alias")
    for kind in order:
        if usable(cells[kind]):
            return kind, cells[kind][0], None
    problems = [problem for _, problem in (cells[kind] for kind in order) if problem]
    return None, None, [*problems, "identified_without_id" if identified else "blank"][0]


def usable(cell):
    text, problem = cell
    return text is not None and problem is None


def match(rows, mapping):
    """Return the identifiers, the others, the unmatched rows as (row, reason), and the counts."""
    found, others, unmatched = [], [], []
    labels = {"external_id": "", "alias": mapping.alias_label, "device_id": ""}
    for number, row in enumerate(rows, start=1):
        cells = {
            "external_id": read(row.get(mapping.external_id)),
            "alias": read(row.get(mapping.alias_name)),
            "device_id": read(row.get(mapping.device_id)),
        }
        if mapping.identified:
            identified = is_yes(row[mapping.identified])
        else:
            text, problem = cells["external_id" if mapping.external_id else "alias"]
            identified = text is not None or problem not in {None, "not_finite"}
        kind, value, reason = identify(cells, identified)
        if kind:
            chosen = (kind, value, labels[kind])
            found.append(chosen)
            others += [
                (k, c[0], labels[k], *chosen)
                for k, c in cells.items()
                if k not in {kind, "external_id"} and usable(c)
            ]
        else:
            unmatched.append((number, reason))
    kinds = Counter(kind for kind, _, _ in set(found))
    counts = {
        "members": len(rows),
        "matched": len(set(found)),
        **{kind: kinds[kind] for kind in labels},
        "duplicates": len(found) - len(set(found)),
        "unmatched": dict(Counter(reason for _, reason in unmatched)),
    }
    return set(found), others, unmatched, counts
