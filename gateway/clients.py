"""Who asks: the address, seen through a proxy we trust, and whether it is a program that only makes previews. Pure.

Discord, and most that show what is behind a link, fetch it as soon as it is posted. They get a card that says what it
is: no name, no file, and no use of the link is counted.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from typing import Final, TypeAlias

import msgspec

Network: TypeAlias = IPv4Network | IPv6Network
DIGEST_CHARACTERS: Final = 22  # 88 bits: enough to tell the clients of one link apart
PREVIEWERS: Final = re.compile(
    r"discordbot|slackbot|slack-imgproxy|telegrambot|whatsapp|twitterbot|facebookexternalhit|facebot|linkedinbot|"
    r"skypeuripreview|mastodon|redditbot|applebot|googlebot|google-safety|bingbot|bingpreview|yandex\w*bot|duckduckbot|"
    r"embedly|iframely|pinterest|vkshare|viber|signal|synapse|matrix|mattermost|zulip|teams|outlook|unfurl|"
    r"link ?preview|preview|crawler|spider|\bbot\b",
    re.IGNORECASE,
)


class Client(msgspec.Struct, frozen=True):
    """Whoever sent a request.

    Attributes
    ----------
    address
        Of the network; empty if it is not known.
    agent
        What it calls itself.
    """

    address: str
    agent: str

    @property
    def previews(self) -> bool:
        """Whether it only makes a preview of what is behind a link."""
        return PREVIEWERS.search(self.agent) is not None

    def digest(self, jti: str) -> str:
        """What tells this client from others of one link, and can be compared with nothing else."""
        return hashlib.sha256(f"{jti}\n{self.address}\n{self.agent}".encode()).hexdigest()[:DIGEST_CHARACTERS]


def read_networks(text: str) -> tuple[Network, ...]:
    """Addresses and networks, separated by commas; ValueError if one is neither."""
    return tuple(ip_network(part.strip(), strict=False) for part in text.split(",") if part.strip())


def read_client(peer: str, headers: Mapping[str, str], trusted: tuple[Network, ...]) -> Client:
    """Who sent a request.

    Parameters
    ----------
    peer
        Address of the other side of the connection.
    headers
        Of the request, names in lower case.
    trusted
        Proxies whose `X-Real-IP` is believed; nobody else's is.
    """
    address = peer
    if (told := headers.get("x-real-ip")) and is_trusted(peer, trusted) and _is_address(told):
        address = told
    return Client(address, headers.get("user-agent", ""))


def is_trusted(address: str, networks: tuple[Network, ...]) -> bool:
    """Whether an address is in one of the networks."""
    return _is_address(address) and any(ip_address(address) in network for network in networks)


def _is_address(text: str) -> bool:
    try:
        ip_address(text)
    except ValueError:
        return False
    return True
