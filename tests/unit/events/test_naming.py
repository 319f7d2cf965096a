"""Names that people read, for every type of event."""

from __future__ import annotations

import pytest

from airflow_provider_heapbraze.events.naming import readable_name
from tests.currents import samples

NAMES = {
    "agentconsole.AgentExecuted": "Agent Console Agent Executed",
    "users.RandomBucketNumberUpdate": "Random Bucket Number Update",
    "users.behaviors.CustomEvent": "Custom Event",
    "users.behaviors.app.FirstSession": "App First Session",
    "users.behaviors.liveactivity.UpdateTokenChange": "Live Activity Update Token Change",
    "users.behaviors.subscription.GlobalStateChange": "Subscription Global State Change",
    "users.campaigns.Conversion": "Campaign Conversion",
    "users.canvas.costep.Send": "Canvas Content Optimizer Step Send",
    "users.canvas.exit.PerformedEvent": "Canvas Exit Performed Event",
    "users.canvas.experimentstep.SplitEntry": "Canvas Experiment Step Split Entry",
    "users.messages.contentcard.Dismiss": "Content Card Dismiss",
    "users.messages.email.MarkAsSpam": "Email Mark As Spam",
    "users.messages.featureflag.Impression": "Feature Flag Impression",
    "users.messages.inappmessage.Click": "In-App Message Click",
    "users.messages.line.InboundReceive": "LINE Inbound Receive",
    "users.messages.pushnotification.Open": "Push Notification Open",
    "users.messages.rcs.Rejection": "RCS Rejection",
    "users.messages.sms.ShortLinkClick": "SMS Short Link Click",
    "users.messages.webhook.Failure": "Webhook Failure",
    "users.messages.whatsapp.Read": "WhatsApp Read",
}


@pytest.mark.parametrize("event_type", NAMES)
def test_names(event_type):
    assert event_type in samples.TYPES
    assert readable_name(event_type) == NAMES[event_type]


def test_no_two_types_have_one_name():
    assert len({readable_name(event_type) for event_type in samples.TYPES}) == len(samples.TYPES)


@pytest.mark.parametrize(
    ("event_type", "name"),
    [
        ("users.messages.carrierpigeon.Land", "Carrierpigeon Land"),
        ("users.messages.email.AMPOpen", "Email AMP Open"),
        ("users.messages.push_token.state_change", "Push Token State Change"),
        ("contentoptimizer.Run", "Content Optimizer Run"),
        ("users.messages", "Users Messages"),
        ("users", "Users"),
        ("Something", "Something"),
        ("Email_Open", "Email Open"),
        ("users..behaviors.Thing.", "Thing"),
        ("users.behaviors.日本", "日本"),
    ],
)
def test_names_of_types_that_nobody_knows_yet(event_type, name):
    shown = readable_name(event_type)
    assert " ".join(shown.replace("_", " ").split()) == name


def test_no_type_has_no_name():
    assert readable_name("") == ""
