r"""A bundle: one portable file that holds a whole session's log, in order. Export, import and backup share it.

    "RETOLD-BUNDLE 1\n"
    record*    u32 length | u32 crc32 | MessagePack [kind, ...], big-endian, CRC over the MessagePack
      0 header   [0, session, created_unix_ns, writer]
      1 message  [1, subject, message_id, data]
      2 end      [2, messages, sha256 over all messages' MessagePack]

A reader knows at every record whether it is whole; a file without its end record was cut short.
"""

from __future__ import annotations

import hashlib
import struct
import zlib
from collections.abc import Iterator
from typing import BinaryIO, Final, TypeAlias

import msgspec

from contracts import wire
from contracts.errors import MalformedError

MAGIC: Final = b"RETOLD-BUNDLE 1\n"
MAX_RECORD_BYTES: Final = 8 * 1024 * 1024  # the server takes messages of 1 MiB
_PREFIX: Final = struct.Struct(">II")


class BundleError(MalformedError):
    """The bundle cannot be read."""


class BundleHeader(msgspec.Struct, frozen=True, array_like=True, tag=0):
    """Whose log this is, and who wrote it when."""

    session: str
    created_unix_ns: int
    writer: str


class BundleMessage(msgspec.Struct, frozen=True, array_like=True, tag=1):
    """One message of the stream, with the id that made its publication idempotent."""

    subject: str
    message_id: str
    data: bytes


class BundleEnd(msgspec.Struct, frozen=True, array_like=True, tag=2):
    """Proof that the file is whole."""

    messages: int
    sha256: bytes


_Record: TypeAlias = BundleHeader | BundleMessage | BundleEnd
_encoder = msgspec.msgpack.Encoder()
_decoder: msgspec.msgpack.Decoder[_Record] = msgspec.msgpack.Decoder(_Record)


def frame(record: _Record) -> bytes:
    """A record as it stands in a bundle: length, checksum, body."""
    return _frame(_encoder.encode(record))


def _frame(body: bytes) -> bytes:
    return _PREFIX.pack(len(body), zlib.crc32(body)) + body


class BundleWriter:
    """Writes a bundle to a file opened for binary writing; `close` writes the end record, not closing the file."""

    def __init__(self, file: BinaryIO, header: BundleHeader) -> None:
        self._file = file
        self._digest = hashlib.sha256()
        self.messages = 0
        file.write(MAGIC)
        self._write(_encoder.encode(header))

    def write(self, message: BundleMessage) -> None:
        """Append one message."""
        body = _encoder.encode(message)
        self._digest.update(body)
        self.messages += 1
        self._write(body)

    def close(self) -> None:
        """Append the end record."""
        self._write(_encoder.encode(BundleEnd(self.messages, self._digest.digest())))

    def _write(self, body: bytes) -> None:
        self._file.write(_frame(body))


class BundleReader:
    """Reads a bundle: `header` at once, then `messages()` or `salvage()` once through, in bounded memory.

    Raises
    ------
    BundleError
        If the file is not a bundle, is damaged, or was cut short.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        if file.read(len(MAGIC)) != MAGIC:
            raise BundleError("this is not a Retold bundle, or one of a later version")
        record = _decode(self._read())
        if not isinstance(record, BundleHeader):
            raise BundleError("the bundle does not start with its header")
        self.header = record
        self.end = file.tell()

    def messages(self) -> Iterator[BundleMessage]:
        """Every message in order; BundleError if the end does not prove that all are there."""
        digest = hashlib.sha256()
        count = 0
        while isinstance(record := _decode(body := self._read()), BundleMessage):
            digest.update(body)  # as it stands: a later version's fields, too
            count += 1
            yield record
        if not isinstance(record, BundleEnd):
            raise BundleError(f"the bundle has a second header after {count} messages")
        if (record.messages, record.sha256) != (count, digest.digest()):
            raise BundleError(f"the bundle says it holds {record.messages} messages, but {count} others are in it")
        if self._file.read(1):
            raise BundleError("the bundle is damaged: something follows its end record")

    def salvage(self) -> Iterator[BundleMessage]:
        """Every whole message of a bundle that was never finished; `end` is where its last whole record ends."""
        while True:
            self.end = self._file.tell()
            try:
                record = _decode(self._read())
            except BundleError:
                return
            if not isinstance(record, BundleMessage):
                return
            yield record

    def message_at(self, position: int) -> BundleMessage:
        """The message whose record starts at `position`: what `file.tell()` said before `messages()` read it."""
        self._file.seek(position)
        record = _decode(self._read())
        if not isinstance(record, BundleMessage):
            raise BundleError(f"no message stands at {position}")
        return record

    def _read(self) -> bytes:
        prefix = self._file.read(_PREFIX.size)
        if len(prefix) < _PREFIX.size:
            raise BundleError("the bundle was cut short: it has no end record")
        length, crc = _PREFIX.unpack(prefix)
        if length > MAX_RECORD_BYTES:
            raise BundleError(f"the bundle is damaged: a record of {length} bytes")
        body = self._file.read(length)
        if len(body) < length:
            raise BundleError("the bundle was cut short in mid-record")
        if zlib.crc32(body) != crc:
            raise BundleError("the bundle is damaged: a record does not match its checksum")
        return body


def _decode(body: bytes) -> _Record:
    return wire.decode(_decoder, body, "a record of a bundle that we know", error=BundleError)
