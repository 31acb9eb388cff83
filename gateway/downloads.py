"""One artifact as an HTTP response: streamed from the object store in bounded memory, in the parts that were asked for.

Bytes take turns: a download holds a place only while it moves TURN_BYTES, so a slow client cannot keep a fast one out,
and all places together hold at most BUDGET_BYTES. They come over a NATS connection of their own: if the server cuts it
for being slow, control does not suffer.

Content-Length is always sent, and the connection is cut when the object vanishes or the client stalls: the client sees
that it is short, and resumes.
"""

from __future__ import annotations

import asyncio
import secrets
import unicodedata
from collections.abc import AsyncIterator, Mapping
from contextlib import aclosing, asynccontextmanager
from http import HTTPStatus
from typing import Final
from urllib.parse import quote

import structlog
from litestar import Response
from litestar.types import Receive, Scope, Send
from werkzeug.http import dump_options_header, http_date

from contracts.errors import RetoldError
from contracts.jetstream.connection import Bus
from contracts.jetstream.objects import StoredArtifact, read_artifact
from contracts.streams import OBJECT_CHUNK_BYTES
from gateway import problems
from gateway.listener import STALL_S
from gateway.problems import ProblemError
from gateway.ranges import (
    Decision,
    Multipart,
    NotModified,
    Part,
    Partial,
    PreconditionFailed,
    Span,
    Unsatisfiable,
    Validators,
    content_range,
    decide,
    frame_parts,
    read_conditions,
)

log = structlog.get_logger()

BUDGET_BYTES: Final = 16 * 1024 * 1024
PLACE_BYTES: Final = 3 * OBJECT_CHUNK_BYTES  # two chunks asked for, and one in the socket's buffer
TURN_BYTES: Final = 8 * OBJECT_CHUNK_BYTES
PLACE_WAIT_S: Final = 10.0  # to begin a download; one that has begun waits as long as it takes
UNRESERVED: Final = "!#$&+-.^_`|~"  # besides letters and digits: RFC 8187 attr-char
ACCEL_LOCATION: Final = "/_cache"  # internal in nginx: ops/deploy/nginx
JUDGED_HERE: Final = ("if-match", "if-none-match", "if-modified-since", "if-unmodified-since")
POLICY: Final = "default-src 'none'; media-src 'self'; frame-ancestors 'none'"


class Places:
    """Who may have bytes in flight; first come, first served."""

    def __init__(self, budget_bytes: int = BUDGET_BYTES) -> None:
        self._free = asyncio.Semaphore(max(1, budget_bytes // PLACE_BYTES))

    @asynccontextmanager
    async def hold(self, *, timeout_s: float | None = None) -> AsyncIterator[None]:
        """Hold a place; TimeoutError if none was free within `timeout_s` seconds."""
        async with asyncio.timeout(timeout_s):
            await self._free.acquire()
        try:
            yield
        finally:
            self._free.release()


class Download:
    """An ASGI response that sends an artifact.

    Parameters
    ----------
    bus
        The connection for bytes.
    inline
        Play it in the browser rather than save it.
    headers
        Of the request, names in lower case.

    Raises
    ------
    ProblemError
        412 or 416, if the request's conditions or ranges say so.
    """

    def __init__(
        self,
        stored: StoredArtifact,
        *,
        bus: Bus,
        places: Places,
        method: str,
        headers: Mapping[str, str],
        disposition: str,
    ) -> None:
        self._stored = stored
        self._bus = bus
        self._places = places
        self._sends_body = method == "GET"
        self._headers = headers
        file = Validators(stored.size, stored.sha256, stored.modified_unix_s)
        self.headers = _describe(stored, disposition)
        self.status, self._body = self._plan(decide(method, read_conditions(headers), file))

    def _plan(self, decision: Decision) -> tuple[HTTPStatus, Multipart]:
        """Status and body; completes the headers."""
        size, media_type = self._stored.size, self._stored.artifact.media_type
        match decision:
            case PreconditionFailed():
                raise ProblemError(problems.PRECONDITION_FAILED)
            case Unsatisfiable():
                raise ProblemError(problems.RANGE_NOT_SATISFIABLE, {"Content-Range": f"bytes */{size}"})
            case NotModified():
                self._sends_body = False
                return HTTPStatus.NOT_MODIFIED, Multipart((), b"")
            case Partial(spans=(span,)):
                status, body = HTTPStatus.PARTIAL_CONTENT, Multipart((Part(b"", span),), b"")
                self.headers["Content-Range"] = content_range(span, size)
            case Partial(spans=spans):
                boundary = secrets.token_hex(16)
                status = HTTPStatus.PARTIAL_CONTENT
                body = frame_parts(spans, size=size, media_type=media_type, boundary=boundary)
                media_type = f"multipart/byteranges; boundary={boundary}"
            case _:
                status, body = HTTPStatus.OK, Multipart((Part(b"", Span(0, size)),), b"")
        self.headers |= {"Content-Type": media_type, "Content-Length": str(body.length)}
        return status, body

    def hand_over(self, path: str) -> Response[bytes]:
        """The same answer, with the bytes left to nginx: it reads the ranges, we have read the conditions.

        Parameters
        ----------
        path
            Below nginx's internal location.
        """
        kept = {name: value for name, value in self.headers.items() if name not in {"Content-Length", "Content-Range"}}
        accel = {"X-Accel-Redirect": f"{ACCEL_LOCATION}/{path}", "Content-Type": self._stored.artifact.media_type}
        return Response(b"", headers={**kept, **accel})

    @property
    def can_be_handed_over(self) -> bool:
        """Whether it is a body, and nginx would judge the request as we do: it knows our tag for ranges only."""
        conditional = any(name in self._headers for name in JUDGED_HERE)
        return self._sends_body and self.status < HTTPStatus.MULTIPLE_CHOICES and not conditional

    async def __call__(self, _scope: Scope, receive: Receive, send: Send) -> None:
        """Send it.

        Raises
        ------
        ProblemError
            503 if no place was free in time: nothing has been sent then.
        """
        if not self._sends_body:
            await self._start(send)
            await send({"type": "http.response.body", "body": b"", "more_body": False})
            return
        client = _Client(receive, send)
        try:
            await self._send_all(client, send)
        except ClientGoneError:
            pass  # the access log says how far it came
        except RetoldError as error:
            if isinstance(error, ProblemError):
                raise
            log.warning("download_cut", session=self._stored.artifact.session, why=str(error), sent=client.sent)
        finally:
            client.close()

    async def _send_all(self, client: _Client, send: Send) -> None:
        async with self._begin():
            await self._start(send)
        for part in self._body.parts:
            await client.put(part.head)
            for turn in _turns(part.span):
                async with self._places.hold():
                    await self._send_span(client, turn)
        await client.put(self._body.tail, last=True)

    @asynccontextmanager
    async def _begin(self) -> AsyncIterator[None]:
        try:
            async with self._places.hold(timeout_s=PLACE_WAIT_S):
                yield
        except TimeoutError as error:
            raise ProblemError(problems.BUSY) from error

    async def _start(self, send: Send) -> None:
        pairs = [(name.lower().encode(), value.encode("latin-1")) for name, value in self.headers.items()]
        await send({"type": "http.response.start", "status": self.status, "headers": pairs})

    async def _send_span(self, client: _Client, span: Span) -> None:
        async with aclosing(read_artifact(self._bus, self._stored, start=span.start, stop=span.stop)) as chunks:
            async for chunk in chunks:
                await client.put(chunk)
        await client.put(b"")  # until the socket's buffer has drained: the place is ours as long as bytes are


class ClientGoneError(RetoldError):
    """The client went away, or took nothing for STALL_S seconds."""


class _Client:
    """The other side of the connection: takes bytes, or is gone."""

    def __init__(self, receive: Receive, send: Send) -> None:
        self._send = send
        self._gone = asyncio.create_task(_until_disconnected(receive))
        self.sent = 0

    async def put(self, data: bytes, *, last: bool = False) -> None:
        """Hand over bytes once those before have left; ClientGoneError if nobody takes them."""
        if self._gone.done():
            raise ClientGoneError
        try:
            async with asyncio.timeout(STALL_S):
                await self._send({"type": "http.response.body", "body": data, "more_body": not last})
        except TimeoutError as error:
            raise ClientGoneError from error
        self.sent += len(data)

    def close(self) -> None:
        """Stop listening."""
        self._gone.cancel()


async def _until_disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


def _turns(span: Span) -> list[Span]:
    """The span in pieces of TURN_BYTES, cut where chunks are."""
    first = span.start - span.start % TURN_BYTES
    edges = range(first, span.stop, TURN_BYTES)
    return [Span(max(edge, span.start), min(edge + TURN_BYTES, span.stop)) for edge in edges]


def _describe(stored: StoredArtifact, disposition: str) -> dict[str, str]:
    return {
        "ETag": f'"{stored.sha256}"',
        "Last-Modified": http_date(stored.modified_unix_s),
        "Accept-Ranges": "bytes",
        "Content-Disposition": content_disposition(stored.artifact.filename, disposition),
        "Content-Security-Policy": POLICY,
    }


def content_disposition(filename: str, disposition: str) -> str:
    """Content-Disposition with the name in ASCII and in UTF-8 (RFC 6266 §4.3, RFC 8187), safe for a header and a disk.

    Control, format and private characters (category C) and slashes cannot stay: they would end the header, turn the
    name around on the screen, or leave the folder.
    """
    name = "".join("_" if character in "/\\" else character for character in filename if _is_visible(character))
    name = name.strip(" .") or "download"
    ascii_name = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode().replace("%", "_").strip()
    if not ascii_name or ascii_name.startswith("."):  # all but the suffix was foreign
        ascii_name = "download" + ascii_name
    encoded = f"UTF-8''{quote(name, safe=UNRESERVED)}"
    return dump_options_header(disposition, {"filename": ascii_name, "filename*": encoded})


def _is_visible(character: str) -> bool:
    return not unicodedata.category(character).startswith("C")
