"""Asking for a link: whoever has no key asks the one who has. Subject `ctl.link.sign`, JSON, one reply.

The gateway faces the internet and holds no private key; it passes on what a caller with the scope `link` asked for. The
signer signs what it is asked, within the caps of every link, and writes each down in its log.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Final

import msgspec
import structlog

from contracts import wire
from contracts.errors import MalformedError, RetoldError
from contracts.ids import Snowflake, check_id
from contracts.jetstream.connection import Bus
from contracts.keys import load_signing_key
from contracts.links import MAX_LIFETIME_S, MAX_USES, Permission, new_claims, sign_link

log = structlog.get_logger()

SIGN_LINK: Final = "ctl.link.sign"
TIMEOUT_S: Final = 5.0


class SignLink(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Sign a link to a session's page, or to the artifact `obj`."""

    sub: str
    session: str
    lifetime_s: int
    obj: str = ""
    may: tuple[Permission, ...] = ()
    uses: int | None = None
    who: Snowflake = ""


class SignedToken(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", tag="signed"):
    """The token, its id, and when it expires."""

    token: str
    jti: str
    expires_unix_s: int


class NotSigned(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", tag="not_signed"):
    """It was not signed, and why."""

    reason: str


class NotSignedError(RetoldError):
    """The signer refused."""


_orders = msgspec.json.Decoder(SignLink)
_answers: msgspec.json.Decoder[SignedToken | NotSigned] = msgspec.json.Decoder(SignedToken | NotSigned)


async def serve_signing(bus: Bus, keys: Path) -> None:
    """Sign what is asked for, from now on, with the newest key of the folder."""

    async def answer(data: bytes) -> bytes:
        try:
            return msgspec.json.encode(_sign(wire.decode(_orders, data, "an order for a link"), keys))
        except (MalformedError, RetoldError) as error:
            return msgspec.json.encode(NotSigned(reason=str(error)))

    await bus.serve(SIGN_LINK, answer, queue="signers")


async def ask_to_sign(bus: Bus, order: SignLink) -> SignedToken:
    """The link that was asked for.

    Raises
    ------
    NotSignedError
        With the signer's reason.
    UnavailableError
        If nobody who has a key runs.
    """
    reply = await bus.request(SIGN_LINK, msgspec.json.encode(order), timeout_s=TIMEOUT_S)
    answer = wire.decode(_answers, reply, "an answer about a link")
    if isinstance(answer, NotSigned):
        raise NotSignedError(answer.reason)
    return answer


def _sign(order: SignLink, keys: Path) -> SignedToken:
    check_id(order.session)
    if not 0 < order.lifetime_s <= MAX_LIFETIME_S or not 1 <= (order.uses or 1) <= MAX_USES:
        raise MalformedError("a link lives at most 31 days, and is used at most 1000 times")
    claims = new_claims(
        sub=order.sub,
        session=order.session,
        action="download" if order.obj else "page",
        obj=order.obj,
        now_s=int(time.time()),
        lifetime_s=order.lifetime_s,
        may=order.may,
        uses=order.uses,
        who=order.who,
    )
    log.info("link_signed", session=order.session, object=order.obj, jti=claims.jti, by=order.sub)
    return SignedToken(token=sign_link(claims, load_signing_key(keys)), jti=claims.jti, expires_unix_s=claims.exp)
