from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from airflow_provider_heapbraze.clients.concurrency import (
    FEWEST_PER_STEP,
    ROUNDS_PER_STEP,
    AdaptiveConcurrency,
)


def one_told_to_wait(lane):
    with lane.slot() as generation:
        lane.told_to_wait(generation)


def test_it_falls_to_one_and_no_further():
    lane = AdaptiveConcurrency(18)
    levels = [lane.level]
    for _ in range(7):
        one_told_to_wait(lane)
        levels.append(lane.level)
    assert levels == [18, 9, 4, 2, 1, 1, 1, 1]


def test_it_rises_again_by_one_and_to_the_top():
    lane = AdaptiveConcurrency(4)
    for _ in range(2):
        one_told_to_wait(lane)
    levels = []
    for _ in range(3 * FEWEST_PER_STEP + 5):
        with lane.slot():
            lane.accepted()
        levels.append(lane.level)
    assert levels[FEWEST_PER_STEP - 2 : FEWEST_PER_STEP] == [1, 2]
    assert levels[2 * FEWEST_PER_STEP - 2 : 2 * FEWEST_PER_STEP] == [2, 3]
    assert levels[-1] == 4


def test_a_wide_lane_needs_some_rounds_for_a_quarter_more():
    lane = AdaptiveConcurrency(40)
    one_told_to_wait(lane)
    for _ in range(ROUNDS_PER_STEP * 20 - 1):
        lane.accepted()
    assert lane.level == 20
    lane.accepted()
    assert lane.level == 25


def test_one_in_some_hundreds_that_is_told_to_wait_leaves_it_wide():
    lane = AdaptiveConcurrency(24)
    levels = []
    for number in range(10_000):
        if number % 300 == 299:
            one_told_to_wait(lane)
        else:
            lane.accepted()
        levels.append(lane.level)
    assert sum(levels) / len(levels) > 15


def test_being_told_to_wait_starts_the_count_anew():
    lane = AdaptiveConcurrency(2)
    one_told_to_wait(lane)
    for _ in range(FEWEST_PER_STEP - 1):
        lane.accepted()
    one_told_to_wait(lane)
    lane.accepted()
    assert lane.level == 1


def test_requests_under_way_together_halve_it_once():
    lane = AdaptiveConcurrency(16)
    slots = [lane.slot() for _ in range(16)]
    generations = [slot.__enter__() for slot in slots]
    for generation in generations:
        lane.told_to_wait(generation)
    for slot in slots:
        slot.__exit__(None, None, None)
    assert lane.level == 8
    one_told_to_wait(lane)
    assert lane.level == 4


def test_no_more_than_the_level_are_under_way():
    lane = AdaptiveConcurrency(8)
    one_told_to_wait(lane)
    one_told_to_wait(lane)
    under_way, most = 0, 0
    lock = threading.Lock()

    def go():
        nonlocal under_way, most
        with lane.slot():
            with lock:
                under_way += 1
                most = max(most, under_way)
            threading.Event().wait(0.002)
            with lock:
                under_way -= 1

    with ThreadPoolExecutor(16) as pool:
        for future in [pool.submit(go) for _ in range(60)]:
            future.result(timeout=20)
    assert most == lane.level == 2


def test_a_place_is_given_back_after_an_error():
    lane = AdaptiveConcurrency(1)
    for _ in range(3):
        with pytest.raises(KeyError), lane.slot():
            raise KeyError
    assert lane.level == 1
