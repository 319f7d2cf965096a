"""Who there is: what Heap knows people by, and what Braze does."""

from __future__ import annotations

# The identifiers in Braze's words. Of two, the one that Heap prefers is the last.
IDENTIFIERS = {
    **{number: [("external_id", f"user-{number}", "")] for number in range(7)},
    7: [("alias", "mail-7", "email"), ("external_id", "user-7", "")],
    8: [("alias", "mail-8", "email"), ("external_id", "user-8", "")],
    9: [("device_id", "phone-9", "")],  # Braze finds only people whom it knows by nothing else by it
    10: [("alias", "mail-10", "email")],
}
PERSON = {identifier: person for person, several in IDENTIFIERS.items() for identifier in several}
STEADY = {person for person, several in IDENTIFIERS.items() if len(several) == 1}
# They are given under one of their identifiers, or both, another night under others.
MOVING = IDENTIFIERS.keys() - STEADY
FORMS = {"both": slice(None), "first": slice(1), "last": slice(1, None)}
BY_EXTERNAL_ID = {person for person in STEADY if IDENTIFIERS[person][0][0] == "external_id"}
# How the cohort shows them: by the external id of the profile, if it has one.
SHOWN = {
    **{f"user-{person}": person for person in range(9)},
    "device:phone-9": 9,
    "alias:email/mail-10": 10,
}
# In the cohort by somebody else's hand: never ours to remove.
STRANGERS = {"user-90", "user-91"}
# Braze refuses them at times, whoever comes in the same request.
REFUSED = {0, 1}
USERS = [
    *({"external_id": f"user-{person}"} for person in range(7)),
    *(
        {
            "external_id": f"user-{person}",
            "aliases": [{"alias_name": f"mail-{person}", "alias_label": "email"}],
        }
        for person in (7, 8)
    ),
    {"device_ids": ["phone-9"]},
    {"aliases": [{"alias_name": "mail-10", "alias_label": "email"}]},
    *({"external_id": stranger} for stranger in sorted(STRANGERS)),
]
_COLUMNS = {"external_id": 0, "alias": 1, "device_id": 2}


def given(person, form):
    """Return the identifiers under which Heap gives somebody."""
    return IDENTIFIERS[person][FORMS[form]] if person in MOVING else IDENTIFIERS[person]


def row(identifiers):
    """Return a row of a source: identity, email, device, identified."""
    cells = ["", "", "", ""]
    for kind, value, _ in identifiers:
        cells[_COLUMNS[kind]] = value
        cells[3] = "true" if kind != "device_id" else cells[3]
    return cells


def people(identifiers):
    """Return whose identifiers these are."""
    return {PERSON[identifier] for identifier in identifiers}


def named(changes, *, leaving):
    """Return the identifiers that a request names."""
    return {
        identifier
        for change in changes
        if change.get("should_remove", False) is leaving
        for identifier in (
            *(("external_id", value, "") for value in change.get("user_ids", [])),
            *(("device_id", value, "") for value in change.get("device_ids", [])),
            *(("alias", one["alias_name"], one["alias_label"]) for one in change.get("aliases", [])),
        )
    }
