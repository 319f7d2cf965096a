"""How a limit is shared: what one step does, with no clock and no store of its own.

Whoever sends is a *lane*. It takes its places in *grants*, each for about half a second, from a state that
all lanes share. The state is one small document, so that any store will do that can exchange a document for
another in one piece.

The limit is kept by the generic cell rate algorithm, as in :class:`.budget.Budget`: a place is counted when
it is granted, and a grant is used soon or not at all. So a window holds no more requests than a slightly
longer one holds places, and that many are never granted. What a dead process did not use is lost.

Each lane has a share of the rate, by its weight, and can always take it; what the others leave is for whoever
asks. A lane's weight is one over the square root of the requests that it has left: a delivery of 10 requests
gets 32 times as much as one of 10,000, is done first, and the large one goes on meanwhile.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple, Self

from airflow_provider_heapbraze.clients.budget import SLACK

if TYPE_CHECKING:
    from airflow_provider_heapbraze.clients.budget import Told

# What a grant is for, in seconds, and in parts of the period where that is short.
SLICE = 0.5
SLICES_PER_PERIOD = 200
# From the moment at which it was asked for, a grant can be used for one and a half slices. Where these are
# short, the way to the store may not be: for so many seconds, or such a part of the period.
LONG_ENOUGH = 0.25
LONG_ENOUGH_PARTS = 60
# Nobody holds up others by silence; lanes that wait ask at least every half second.
FORGOTTEN_AFTER = 3.0
LOOKS_WITHIN = 1.0
# What may be left unused for a moment and used after it: lanes do not ask on the dot.
BURST_SECONDS = 4.0
BURST_SHARE = 0.01
# The rest goes to whoever asks, as what is left does: so there is always something for those who are due.
SHARED_OUT = 0.98
UNKNOWN = math.inf
# Part of a budget's name: who writes the state in another way does not read this one.
FORM = "1"
ROUNDING = 1e-9


class Terms(NamedTuple):
    """What follows from a limit, in seconds.

    :param interval: from one place to the next.
    :param burst: places that may go at once.
    :param slice: what a grant is for.
    :param usable: for so long it can be used,
    :param returnable: and for so long be given back.
    """

    interval: float
    burst: int
    slice: float
    usable: float
    returnable: float

    @property
    def ahead(self) -> float:
        """Return for how long the limit may have been granted in advance."""
        return (self.burst - 1) * self.interval

    @classmethod
    def of(cls, limit: int, period: float) -> Self:
        """Return the terms of a limit.

        Places granted before a window may be used in it, by their lane or by whoever gets them after it: a
        burst and then one place per interval make at most ``limit`` in a period and that time.
        """
        part = min(SLICE, period / SLICES_PER_PERIOD)
        burst = max(1, int(min(BURST_SHARE * limit, BURST_SECONDS * limit / period)))
        usable = max(1.5 * part, min(LONG_ENOUGH, period / LONG_ENOUGH_PARTS))
        returnable = usable + part / 2
        interval = SLACK * (period + returnable) / (limit - burst + 1)
        return cls(interval, burst, part, usable, returnable)


class Ask(NamedTuple):
    """What a lane tells, and what it would like.

    :param wanted: places at most; 0 to tell only.
    :param returned: seconds of the limit that the unused places of its last grant stand for.
    :param granted_at: when that was: nothing is taken back twice, however often a step is tried.
    :param told: by the newest answer.
    :param pause: seconds for which nobody may go.
    :param leaves: it takes part no longer.
    """

    lane: str
    weight: float
    wanted: int = 0
    returned: float = 0.0
    granted_at: float = -math.inf
    told: Told | None = None
    pause: float = 0.0
    leaves: bool = False


class Grant(NamedTuple):
    """What a lane gets.

    :param places: to be spread over ``seconds``; where there is none, to ask again after so many.
    :param cost: seconds of the limit that each stands for.
    :param at: when it was, on the store's clock.
    :param again: seconds before which it is not worth asking for more.
    """

    places: int
    seconds: float
    cost: float
    at: float
    again: float = 0.0


@dataclass
class Lane:
    """One that takes part.

    :param served_until: when it will have used up what it was granted, at the pace of its share: from then on
        it is due.
    :param waits: it asked last for what it did not get.
    """

    weight: float
    seen_at: float
    served_until: float = -math.inf
    granted_at: float = -math.inf
    waits: bool = False


@dataclass
class Sharing:
    """The state of a limit that several share, on the clock of its store.

    :param at: when the last step was.
    :param earned_until: when the places so far would have gone if each had waited its turn.
    :param limit: that answers have told of.
    :param slow_interval: from one place to the next, until ``slow_until``.
    """

    at: float
    earned_until: float
    paused_until: float = -math.inf
    limit: int | None = None
    slow_interval: float = 0.0
    slow_until: float = -math.inf
    lanes: dict[str, Lane] = field(default_factory=dict)

    @classmethod
    def read(cls, document: str | None, now: float) -> Self:
        """Return the state that a document holds; where it holds none, what is safe.

        Where nothing is known of the past, no burst is: the last place of one may just have gone.
        """
        try:
            content = json.loads(document or "")
            lanes = {name: Lane(*values) for name, values in content.pop("lanes").items()}
            state = cls(**content, lanes=lanes)
        except (ValueError, TypeError, KeyError, AttributeError):
            return cls(at=now, earned_until=UNKNOWN)
        state._move(now)
        return state

    def written(self) -> str:
        """Return the document that holds this state."""
        lanes = {
            name: [lane.weight, lane.seen_at, lane.served_until, lane.granted_at, lane.waits]
            for name, lane in self.lanes.items()
        }
        return json.dumps({**vars(self), "lanes": lanes}, separators=(",", ":"))

    def step(self, ask: Ask, limit: int, period: float) -> Grant:
        """Let a lane tell and take.

        :param limit: that this lane was set; a smaller one that answers told of counts in its place.
        """
        now = self.at
        if ask.told and ask.told.limit:
            self.limit = ask.told.limit
        terms = Terms.of(min(limit, self.limit or limit), period)
        if self.earned_until == UNKNOWN:
            self.earned_until = now + terms.ahead
        self._listen(ask, terms)
        interval = self._interval(terms)
        lane = self._enter(ask, terms)
        if lane is None or not ask.wanted:
            return Grant(0, 0.0, interval, now)
        if now < self.paused_until:
            return Grant(0, self.paused_until - now, interval, now)
        return self._serve(lane, ask.wanted, terms, interval)

    def _serve(self, lane: Lane, wanted: int, terms: Terms, interval: float) -> Grant:
        """Grant a lane its share and what others leave, or tell it when to ask again."""
        now = self.at
        self.earned_until = max(self.earned_until, now)
        room = (now + terms.ahead - self.earned_until) / interval + 1
        alone = len(self.lanes) == 1
        for_others = 0.0 if alone else min(terms.slice / interval, (terms.burst - 1) / 2)
        weights = sum(each.weight for each in self.lanes.values())
        rate = SHARED_OUT * lane.weight / weights / interval
        served_from = max(lane.served_until, now - terms.slice)
        share = max(int((now + terms.slice - served_from) * rate), int(served_from <= now), 0)
        left = 0 if self._others_wait(lane) else max(0, int(room - for_others + ROUNDING))
        # Twice the limit's own pace at most: what was left makes no burst.
        most = max(1, int(2 * terms.slice / interval))
        places = min(wanted, int(room + ROUNDING), share + left, most)
        lane.waits = places < 1
        if lane.waits:
            until_due = max((1 - room) * interval, lane.served_until - now)
            until_left = max((1 - room + for_others) * interval, 0.0 if alone else terms.slice)
            return Grant(0, max(min(until_due, until_left), terms.slice / 2), interval, now)
        self.earned_until += places * interval
        lane.granted_at = now
        # What it took of the others' is not held against it for long.
        served_until = min(served_from + places / rate, now + 2 * terms.slice)
        lane.served_until = max(served_until, served_from + 1 / rate)
        # Whoever is alone goes at the limit's own pace.
        seconds = min(terms.slice, places * interval) if alone else terms.slice
        if left or places == wanted:
            return Grant(places, seconds, interval, now)
        # Until it is due, but not so long that what others leave is lost.
        until_full = (terms.burst - room + places) * interval
        again = min(lane.served_until - now, 2 * terms.slice, until_full / 2)
        return Grant(places, seconds, interval, now, again)

    def _others_wait(self, lane: Lane) -> bool:
        """Tell whether somebody else is due and about to ask again."""
        return any(
            other.waits and other.served_until <= self.at <= other.seen_at + LOOKS_WITHIN
            for other in self.lanes.values()
            if other is not lane
        )

    def _move(self, now: float) -> None:
        """Bring the state to the present; where the clock went back, all times go back with it."""
        back = max(0.0, self.at - now)
        self.at = now
        if back:
            self.earned_until -= back
            self.paused_until -= back
            self.slow_until -= back
            for lane in self.lanes.values():
                lane.seen_at -= back
                lane.served_until -= back
                lane.granted_at -= back

    def _interval(self, terms: Terms) -> float:
        return max(terms.interval, self.slow_interval) if self.at < self.slow_until else terms.interval

    def _listen(self, ask: Ask, terms: Terms) -> None:
        """Pause where a lane was told to, and make what remains last until the reset."""
        self.paused_until = max(self.paused_until, self.at + ask.pause)
        if ask.told is None or ask.told.remaining is None:
            return
        reset_at = self.at + ask.told.seconds
        if ask.told.remaining < 1:
            self.paused_until = max(self.paused_until, reset_at)
            return
        # Some of it may be granted already, and not be sent yet.
        granted = min(terms.usable / self._interval(terms), ask.told.remaining / 2)
        self.slow_interval = ask.told.seconds / (ask.told.remaining - granted)
        self.slow_until = reset_at

    def _enter(self, ask: Ask, terms: Terms) -> Lane | None:
        """Note that a lane is there, and take back what it did not use; None where it leaves."""
        now = self.at
        for name in [name for name, lane in self.lanes.items() if lane.seen_at < now - FORGOTTEN_AFTER]:
            del self.lanes[name]
        lane = self.lanes.setdefault(ask.lane, Lane(ask.weight, now))
        lane.weight, lane.seen_at = ask.weight, now
        if ask.returned and ask.granted_at == lane.granted_at >= now - terms.returnable:
            self.earned_until -= ask.returned
            lane.granted_at = -math.inf
        if ask.leaves:
            del self.lanes[ask.lane]
            return None
        return lane
