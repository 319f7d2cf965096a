"""Readable names for Braze's event types: ``users.messages.email.Open`` is ``Email Open``."""

from __future__ import annotations

import re
from functools import lru_cache

CUSTOM_EVENT = "users.behaviors.CustomEvent"
# What the other words of the type say already.
SILENT = frozenset({"users", "messages", "behaviors"})
WORDS = {
    "agentconsole": "Agent Console",
    "canvasstep": "Canvas Step",
    "campaigns": "Campaign",
    "contentcard": "Content Card",
    "contentoptimizer": "Content Optimizer",
    "costep": "Content Optimizer Step",
    "experimentstep": "Experiment Step",
    "featureflag": "Feature Flag",
    "inappmessage": "In-App Message",
    "landingpage": "Landing Page",
    "line": "LINE",
    "liveactivity": "Live Activity",
    "newsfeedcard": "News Feed Card",
    "pushnotification": "Push Notification",
    "rcs": "RCS",
    "sendtodestination": "Send to Destination",
    "sms": "SMS",
    "subscriptiongroup": "Subscription Group",
    "whatsapp": "WhatsApp",
}


@lru_cache(maxsize=4096)
def readable_name(event_type: str) -> str:
    """Return a name that people read for an event type, also for types that nobody knows yet."""
    parts = [part for part in event_type.split(".") if part]
    spoken = [part for part in parts if part not in SILENT] or parts
    return " ".join(WORDS.get(part) or _words(part) for part in spoken)


def _words(part: str) -> str:
    """Take a CamelCase name apart; what is all lower case gets a capital."""
    words = re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z0-9]+|[^A-Za-z0-9_]+", part) or [part]
    return " ".join(word[:1].upper() + word[1:] for word in words)
