"""Signing links: for the operator at the command line, and for each person by the bot."""

from __future__ import annotations

import time
from typing import Final

from contracts.keys import PrivateKey, load_signing_key
from contracts.links import Action, Permission, download_path, list_path, new_claims, page_path, sign_link
from contracts.settings import Settings

OPERATOR: Final = "operator"
HOUR_S: Final = 3600


class Linker:
    """Signs links of this installation.

    Parameters
    ----------
    subject
        For whom: a Discord user id, or the operator.
    hours
        How long they live; RETOLD_LINK_HOURS if not given.
    may
        What visitors of its pages may do besides listening.
    uses
        By how many clients a link may be opened; None = by any.
    who
        The only Discord account that may open them, signed in; empty: whoever has them, or `subject` if
        RETOLD_BIND_LINKS says so.

    Raises
    ------
    KeyFileError
        If the signing key cannot be read.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        subject: str = OPERATOR,
        hours: float | None = None,
        key: PrivateKey | None = None,
        may: tuple[Permission, ...] = (),
        uses: int | None = None,
        who: str = "",
    ) -> None:
        self._key = key or load_signing_key(settings.data / "keys")
        self._base = settings.public_url.rstrip("/")
        self._subject = subject
        self._lifetime_s = round((hours or settings.link_hours) * HOUR_S)
        self._may = may
        self._uses = uses
        self._who = who or (subject if settings.bind_links and subject.isdecimal() else "")
        self.expires_unix_s = int(time.time()) + self._lifetime_s

    def page(self, session: str) -> str:
        """A link to a session's page."""
        return self._base + page_path(self._sign(session, "page", ""))

    def listing(self, whose: str) -> str:
        """A link to a list of sessions: `user:<id>`, `guild:<id>` or `all`."""
        return self._base + list_path(self._sign("", "list", whose))

    def download(self, session: str, name: str, filename: str) -> str:
        """A link to one artifact, by its object name."""
        return self._base + download_path(self._sign(session, "download", name), filename)

    def _sign(self, session: str, action: Action, obj: str) -> str:
        claims = new_claims(
            sub=self._subject,
            session=session,
            action=action,
            obj=obj,
            now_s=int(time.time()),
            lifetime_s=self._lifetime_s,
            may=() if action == "download" else self._may,
            uses=self._uses,
            who=self._who,
        )
        return sign_link(claims, self._key)
