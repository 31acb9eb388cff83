"""Work that runs ahead in a thread of its own, some items at most, so that both cores are busy.

Decoders and most of numpy let other threads run meanwhile. What the work raises is raised where its items are taken.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterable, Iterator
from typing import Final, Generic, TypeVar

T = TypeVar("T")

ITEMS: Final = 4


class _Ended(Generic[T]):
    """The last item: how the work ended."""

    def __init__(self, error: BaseException | None = None) -> None:
        self.error = error


def ahead(items: Iterable[T], *, most: int = ITEMS) -> Iterator[T]:
    """The same items in their order; up to `most` of them are made before they are asked for.

    A consumer that stops early ends the work after its next item; a generator is closed.
    """
    made: queue.Queue[T | _Ended[T]] = queue.Queue(most)
    stopped = threading.Event()

    def work() -> None:
        ended: _Ended[T] = _Ended()
        try:
            for item in items:
                made.put(item)
                if stopped.is_set():
                    break
        except BaseException as error:  # noqa: BLE001  # raised again by the consumer
            ended = _Ended(error)
        made.put(ended)

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    last: T | _Ended[T] | None = None
    try:
        while not isinstance(last := made.get(), _Ended):
            yield last
        if last.error is not None:
            raise last.error
    finally:
        stopped.set()
        while not isinstance(last, _Ended):
            last = made.get()
        thread.join()
