"""The systemd units of `ops/deploy/systemd`, filled in for a machine and put where systemd finds them."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import msgspec

from contracts.settings import variable
from ops.setup.secrets import keep_secret

UNITS: Final = Path(__file__).parents[1] / "deploy" / "systemd"
UNIT_MODE: Final = 0o644
PLACES: Final = dict.fromkeys((".service", ".target", ".timer"), "etc/systemd/system")
NAMED: Final = {"retold.sysusers": "etc/sysusers.d/retold.conf", "retold.tmpfiles": "etc/tmpfiles.d/retold.conf"}
SETTINGS: Final = f"# Settings of every service; the README lists them.\n# {variable('public_url')}=\n"
COMMAND_LINE: Final = f"""\
{variable("data")}=/var/lib/retold/capture
{variable("nats_url")}=@NATS_URL@
{variable("nats_seed_file")}=@FOLDER@/operator/nats.nk
@TLS@{variable("nats_ca_file")}=@FOLDER@/operator/ca.pem
"""
WITH_TLS: Final = "@TLS@"  # begins lines that only TLS needs
TOKEN: Final = f"{variable('discord_token')}="


class Systemd(msgspec.Struct, frozen=True, kw_only=True):
    """Where everything is.

    Attributes
    ----------
    root
        `/`, or the root of what is being packaged.
    folder
        Keys and configuration.
    python, nats_server
        The programs that are run; absolute.
    """

    root: Path
    folder: Path
    python: Path
    nats_server: Path

    @property
    def settings_file(self) -> Path:
        """Settings of every service."""
        return self.folder / "retold.env"

    @property
    def token_file(self) -> Path:
        """The bot's token, which only capture is given."""
        return self.folder / "capture" / "discord.env"

    @property
    def command_line_file(self) -> Path:
        """Settings by which the command line finds this installation."""
        return self.folder / "operator" / "retold.env"

    def install(self, *, listen: str, tls_host: str = "") -> list[Path]:
        """Write the units anew, and the files for settings if there are none; what was not there before.

        Parameters
        ----------
        listen
            `host:port` of the NATS server.
        tls_host
            Its name in its certificate; empty = it speaks in the clear.
        """
        made = [path for path in (self.settings_file, self.token_file) if not path.exists()]
        self.command_line_file.write_text(self.fill(COMMAND_LINE, listen=listen, tls_host=tls_host))
        keep_secret(self.settings_file, lambda: SETTINGS)
        keep_secret(self.token_file, lambda: TOKEN)
        for template in sorted(UNITS.iterdir()):
            path = self.root / (NAMED.get(template.name) or f"{PLACES[template.suffix]}/{template.name}")
            path.parent.mkdir(parents=True, exist_ok=True)
            if not path.exists():
                made.append(path)
            path.write_text(self.fill(template.read_text(), listen=listen, tls_host=tls_host))
            path.chmod(UNIT_MODE)
        return made

    def fill(self, template: str, *, listen: str, tls_host: str) -> str:
        """A template with this machine's programs and addresses."""
        address = f"{tls_host}:{listen.rpartition(':')[2]}" if tls_host else listen
        folder = str(
            Path("/") / self.folder.relative_to(self.root) if self.folder.is_relative_to(self.root) else self.folder
        )
        values = {
            "PYTHON": str(self.python),
            "NATS_SERVER": str(self.nats_server),
            "FOLDER": str(folder),
            "NATS_URL": f"{'tls' if tls_host else 'nats'}://{address}",
        }
        filled = "".join(
            line for line in template.splitlines(keepends=True) if tls_host or not line.startswith(WITH_TLS)
        )
        filled = filled.replace(WITH_TLS, "")
        for name, value in values.items():
            filled = filled.replace(f"@{name}@", value)
        return filled
