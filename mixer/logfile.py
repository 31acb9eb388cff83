"""A session's log in a bundle file: written once from the replay, folded once.

The rendering process works from this file alone: a render is a function of a bundle and a recipe.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Final, Protocol, Self

from contracts.bundle import BundleHeader, BundleMessage, BundleReader, BundleWriter
from mixer.columns import Columns
from mixer.replay import Session, SessionFold

_YIELD_MESSAGES: Final = 64


class LogItem(Protocol):
    """One message of the log, as `contracts.jetstream.replay` gives it."""

    @property
    def subject(self) -> str:
        """Where it was published."""

    @property
    def message_id(self) -> str:
        """Its Nats-Msg-Id."""

    @property
    def data(self) -> bytes:
        """What it says."""


async def write_log(path: Path, session: str, messages: AsyncIterator[LogItem]) -> int:
    """Write a replay to a bundle file; the number of messages."""
    with path.open("wb") as file:
        writer = BundleWriter(file, BundleHeader(session, 0, "mixer"))
        async for message in messages:
            writer.write(BundleMessage(message.subject, message.message_id, message.data))
        writer.close()
        return writer.messages


class LogFile:
    """A bundle opened for rendering; a context manager. `fold` comes first, and once."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("rb")
        self._folder = path.parent
        self._size = path.stat().st_size
        self._reader = BundleReader(self._file)

    def __enter__(self) -> Self:
        """Itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the file."""
        self._file.close()

    def messages(self, progress: Callable[[float], None] = lambda _: None) -> Iterator[BundleMessage]:
        """Every message in the log's order, once; BundleError as `fold`."""
        for count, message in enumerate(self._reader.messages()):
            if count % _YIELD_MESSAGES == 0:
                progress(self._file.tell() / self._size)
            yield message

    def fold(self, progress: Callable[[float], None] = lambda _: None) -> Session:
        """The session that the log tells; its packets go into columns beside this file.

        Raises
        ------
        BundleError
            If the file is damaged or was cut short.
        """
        fold = SessionFold(Columns(self._folder))
        for message in self.messages(progress):
            fold.apply(message.subject, message.data)
        return fold.session()
