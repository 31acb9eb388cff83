"""Work that runs ahead: the same items, the same errors, and an end when nobody asks any more."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from mixer.ahead import ahead


def test_items_come_in_their_order():
    assert list(ahead(range(1000))) == list(range(1000))


def test_an_error_comes_where_its_item_would():
    def failing() -> Iterator[int]:
        yield 1
        raise InterruptedError("cancelled")

    items = ahead(failing())
    assert next(items) == 1
    with pytest.raises(InterruptedError, match="cancelled"):
        next(items)


def test_a_consumer_that_stops_ends_the_work():
    made: list[int] = []

    def work() -> Iterator[int]:
        for number in range(10_000):
            made.append(number)
            yield number

    before = threading.active_count()
    items = ahead(work(), most=2)
    assert next(items) == 0
    items.close()
    assert threading.active_count() == before
    assert len(made) < 10


def test_no_more_than_asked_for_is_made_ahead():
    made: list[int] = []

    def work() -> Iterator[int]:
        for number in range(100):
            made.append(number)
            yield number

    items = ahead(work(), most=3)
    for taken in range(50):
        next(items)
        assert len(made) <= taken + 6
    items.close()
