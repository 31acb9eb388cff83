"""HTML from views: Jinja2 with autoescape always on, and what pages refer to under an address that changes with it."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any, Final

import jinja2
import msgspec

from gateway.pages.form import CHOICES
from gateway.pages.listing import ListView
from gateway.pages.session import SessionView

STATIC: Final = Path(__file__).parent / "static"
TYPES: Final = {".css": "text/css", ".svg": "image/svg+xml", ".js": "text/javascript"}
PAGE_POLICY: Final = (
    "default-src 'none'; script-src 'self'; connect-src 'self'; style-src 'self'; img-src 'self'; media-src 'self'; "
    "base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
)


class Asset(msgspec.Struct, frozen=True):
    """A file that pages refer to."""

    body: bytes
    media_type: str


def _load_assets() -> tuple[str, dict[str, Asset]]:
    """The digest of them all, and each by `<digest>/<name>`: modules find one another by relative addresses."""
    files = {path.name: path.read_bytes() for path in sorted(STATIC.iterdir()) if path.suffix in TYPES}
    digest = hashlib.sha256(b"".join(files.values())).hexdigest()[:12]
    return digest, {f"{digest}/{name}": Asset(body, TYPES[Path(name).suffix]) for name, body in files.items()}


_DIGEST, ASSETS = _load_assets()
_environment = jinja2.Environment(
    loader=jinja2.FileSystemLoader(Path(__file__).parent / "templates"),
    autoescape=True,
    undefined=jinja2.StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
_environment.globals |= {"assets": f"/assets/{_DIGEST}", "choices": CHOICES}


def render_session(view: SessionView) -> bytes:
    """The page of a session."""
    return _render("session.html", view=view)


def render_list(view: ListView) -> bytes:
    """The page of a list of sessions."""
    return _render("list.html", view=view)


def render_error(title: str, detail: str, status: int) -> bytes:
    """The page of a problem."""
    return _render("error.html", title=title, detail=detail, status=int(status))


def render_home() -> bytes:
    """What stands at the address without any link."""
    return _render("home.html")


def render_card() -> bytes:
    """What a program gets that shows what is behind links: that it is a recording, and nothing of it."""
    return _render("card.html")


def render_sign_in(*, other: bool) -> bytes:
    """What stands before a link that is for one account; `other`: they signed in with another."""
    return _render("signin.html", other=other)


def render_landing() -> bytes:
    """What stands before a link that can be opened only so often."""
    return _render("landing.html")


def render_delete(*, title: str, length: str, base: str, grace: str) -> bytes:
    """The question before a session is deleted; `grace`: how long it can be undone, if it can."""
    return _render("delete.html", title=title, length=length, base=base, grace=grace)


def render_deleted(*, grace: str, base: str) -> bytes:
    """A session was deleted; with a `base`, it can be undone from here."""
    return _render("deleted.html", grace=grace, base=base)


def _render(template: str, **values: Any) -> bytes:
    return _environment.get_template(template).render(**values).encode()
