"""Settings from the environment: typed, each with its sentence of help, and every problem reported at once.

The name is RETOLD_ and the field's name in capitals. The README's table is made from this class and tested against it.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Final, get_type_hints

import msgspec
from msgspec import Meta

from contracts.errors import SettingsError
from contracts.keeping import AGE_PATTERN

PREFIX: Final = "RETOLD_"
OPTIONAL_AGE: Final = rf"^({AGE_PATTERN})?\Z"
URL: Final = r"^(http|https|ws|wss|nats|tls)://\S+\Z"


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that can be set."""

    discord_token: Annotated[
        str, Meta(description="The bot's token. Only capture needs it; without it `retold up` does not record.")
    ] = ""
    data: Annotated[Path, Meta(description="Folder of the embedded server, the keys and the spool.")] = Path(
        "retold-data"
    )
    nats_url: Annotated[
        str,
        Meta(
            pattern=URL,
            description="The NATS server, or those of a cluster with commas between; credentials may stand in it. "
            "`retold up` starts one of its own.",
        ),
    ] = "nats://127.0.0.1:4222"
    nats_seed_file: Annotated[
        str,
        Meta(description="This service's NKEY; empty = `nats/keys/<service>.nk` below RETOLD_DATA, if it is there."),
    ] = ""
    nats_ca_file: Annotated[
        str, Meta(description="Who vouches for the NATS server, PEM; with it nothing is said in the clear.")
    ] = ""
    nats_cert_file: Annotated[
        str, Meta(description="Certificate that is shown to a NATS server which asks for one, PEM.")
    ] = ""
    nats_key_file: Annotated[str, Meta(description="Its key; empty = it lies in the same file.")] = ""
    nats_replicas: Annotated[
        int,
        Meta(ge=0, le=5, description="Copies of every stream, 1, 3 or 5; 0 = as they are, and one at first."),
    ] = 0
    shards: Annotated[
        int,
        Meta(
            ge=1,
            le=4096,
            description="Parts that Discord servers are divided into; several captures share them, and take over from "
            "each other. The same for all.",
        ),
    ] = 1
    public_url: Annotated[
        str,
        Meta(
            pattern=r"^https?://\S+\Z",
            description="Where links point: the gateway as people reach it. By itself, its port on this machine.",
        ),
    ] = "http://127.0.0.1:8080"
    gateway_host: Annotated[str, Meta(min_length=1, description="Address the gateway listens on.")] = "127.0.0.1"
    gateway_port: Annotated[int, Meta(ge=0, le=65535, description="Port the gateway listens on.")] = 8080
    trusted_proxies: Annotated[
        str, Meta(description="Addresses or networks of proxies in front of the gateway, whose X-Real-IP is believed.")
    ] = ""
    cache: Annotated[
        str,
        Meta(description="Folder of files that nginx sends for the gateway (ops/deploy/nginx); empty = none."),
    ] = ""
    cache_gb: Annotated[float, Meta(gt=0, description="How much the cache may hold, GB.")] = 10.0
    webhook_url: Annotated[
        str, Meta(pattern=r"^(https?://\S+)?\Z", description="Who is told when sessions end and renders are ready.")
    ] = ""
    webhook_secret: Annotated[
        str, Meta(pattern=r"^(.{16,})?\Z", description="Signs what the webhook is told; at least 16 characters.")
    ] = ""
    webhook_private: Annotated[bool, Meta(description="Let the webhook lead into a private network.")] = False
    retention: Annotated[
        str,
        Meta(pattern=OPTIONAL_AGE, description="How old recordings may become: 36h, 30d, 12w, 2y; empty = any age."),
    ] = ""
    quota_gb: Annotated[
        float, Meta(ge=0, description="Beyond so many GB of recordings and files the oldest go; 0 = no limit.")
    ] = 0.0
    warn_hours: Annotated[
        float, Meta(ge=0, le=8784, description="So long before, a recording's people are told that it will go.")
    ] = 72.0
    grace_hours: Annotated[
        float, Meta(ge=0, le=8784, description="So long a deleted recording can be brought back; 0 = not at all.")
    ] = 24.0
    archive_after: Annotated[
        str,
        Meta(pattern=OPTIONAL_AGE, description="Recordings older than this leave for the S3 archive; empty = none do."),
    ] = ""
    s3_bucket: Annotated[str, Meta(description="Bucket for the archive and for `retold backup s3`; empty = none.")] = ""
    s3_endpoint: Annotated[
        str, Meta(pattern=r"^(https?://\S+)?\Z", description="Address of S3-compatible storage; empty = AWS.")
    ] = ""
    s3_region: Annotated[str, Meta(min_length=1, description="Its region.")] = "us-east-1"
    s3_prefix: Annotated[
        str, Meta(pattern=r"^[^/].*[^/]\Z|^[^/]\Z", description="What every name in the bucket begins with.")
    ] = "retold"
    s3_key_id: Annotated[str, Meta(description="Access key id.")] = ""
    s3_secret: Annotated[str, Meta(description="Secret access key.")] = ""
    link_hours: Annotated[float, Meta(gt=0, le=744, description="How long a link lives, hours; at most 31 days.")] = (
        24.0
    )
    discord_client_id: Annotated[
        str,
        Meta(
            pattern=r"^([0-9]{1,20})?\Z",
            description="The application's OAuth2 client id: for links that open only for who signed in with Discord.",
        ),
    ] = ""
    discord_client_secret: Annotated[str, Meta(description="Its client secret; needed for signing in.")] = ""
    bind_links: Annotated[
        bool, Meta(description="The bot's links open only for who asked for them, signed in with Discord.")
    ] = False
    ffmpeg: Annotated[
        str, Meta(description="The ffmpeg to use; empty = one on PATH if it has what is needed, else the wheel's.")
    ] = ""
    mixer_jobs: Annotated[int, Meta(ge=1, le=64, description="Renders that one mixer does at a time.")] = 2
    follow: Annotated[
        int, Meta(ge=0, le=64, description="Running sessions that one mixer follows; 0 = mix them when they ended.")
    ] = 4
    auto_render: Annotated[bool, Meta(description="Render mix and tracks as soon as a session ends.")] = True
    metrics_host: Annotated[
        str,
        Meta(min_length=1, description="Address that figures for Prometheus are served on; they ask for no password."),
    ] = "127.0.0.1"
    metrics_port: Annotated[
        int,
        Meta(
            ge=0,
            le=65532,
            description="Port of `/metrics`; 0 = none. `retold up` gives it to capture, the next to the mixer, then "
            "`retold metrics`, then the keeper.",
        ),
    ] = 0
    nats_monitor_url: Annotated[
        str,
        Meta(
            pattern=r"^(https?://\S+)?\Z",
            description="NATS' monitoring, such as http://127.0.0.1:8222: `lag` and `metrics` then ask once, for all.",
        ),
    ] = ""
    log_level: Annotated[
        str, Meta(pattern=r"^(debug|info|warning|error)\Z", description="debug, info, warning or error.")
    ] = "info"
    discord_api_url: Annotated[
        str, Meta(pattern=r"^(https?://\S+)?\Z", description="Another Discord REST API, such as the loopback's.")
    ] = ""
    discord_gateway_url: Annotated[str, Meta(pattern=r"^(wss?://\S+)?\Z", description="Another Discord gateway.")] = ""
    discord_ca_file: Annotated[str, Meta(description="Extra certificate authority for Discord's TLS, PEM.")] = ""

    def __repr__(self) -> str:
        """Never the secrets."""
        return f"Settings(data={str(self.data)!r}, public_url={self.public_url!r})"

    def __rich_repr__(self) -> list[tuple[str, Any]]:
        """What rich shows, in tracebacks with locals too: never the secrets."""
        return [("data", str(self.data)), ("public_url", self.public_url)]


def load_settings(environ: Mapping[str, str], *, required: tuple[str, ...] = ()) -> Settings:
    """Settings from an environment; empty variables count as absent.

    Parameters
    ----------
    environ
        Usually `os.environ`.
    required
        Field names that this service cannot do without.

    Raises
    ------
    SettingsError
        Naming every variable that is wrong, unknown or missing, and what it needs.
    """
    values: dict[str, Any] = {}
    problems: list[str] = []
    types = get_type_hints(Settings, include_extras=True)
    for name, kind in types.items():
        if text := environ.get(variable(name), ""):
            try:
                values[name] = msgspec.convert(text, kind, strict=False, dec_hook=_from_text)
            except msgspec.ValidationError as error:
                problems.append(f"{variable(name)}: {_say(error)}")
    known = {variable(name) for name in types}
    problems += [
        f"{name}: no such setting" for name in sorted(environ) if name.startswith(PREFIX) and name not in known
    ]
    problems += [f"{variable(name)}: required, and not set" for name in required if not environ.get(variable(name))]
    if problems:
        raise SettingsError(problems)
    if "public_url" not in values and values.get("gateway_port"):
        values["public_url"] = f"http://127.0.0.1:{values['gateway_port']}"
    return Settings(**values)


def variable(name: str) -> str:
    """The environment variable of a field."""
    return PREFIX + name.upper()


def describe() -> list[tuple[str, str, str]]:
    """(variable, default, help) of every setting, in order: the README's table."""
    rows = []
    hints = get_type_hints(Settings, include_extras=True)
    for field in msgspec.structs.fields(Settings):
        meta: Meta = hints[field.name].__metadata__[0]
        default = str(field.default).lower() if isinstance(field.default, bool) else str(field.default)
        rows.append((variable(field.name), default, meta.description or ""))
    return rows


def _from_text(kind: type, value: object) -> object:
    if kind is Path:
        return Path(str(value))
    raise NotImplementedError


def _say(error: msgspec.ValidationError) -> str:
    return str(error).split(" - at ", maxsplit=1)[0]
