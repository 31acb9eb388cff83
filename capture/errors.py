"""Capture's errors.

RetoldError
RefusedError (contracts.commands)   a request that was not done: the asker is told why
SettingsError
LoginError                        the operator's: Discord does not take the token
ClientException (discord.py)
VoiceEndedError                   Discord's: it ended the voice connection for good
"""

from __future__ import annotations

import discord

from contracts.errors import SettingsError


class LoginError(SettingsError):
    """Discord does not accept the bot's token; starting again would not help."""

    def __init__(self) -> None:
        super().__init__(["RETOLD_DISCORD_TOKEN: Discord does not accept it; its developer portal shows the right one"])


class VoiceEndedError(discord.ClientException):
    """Discord ended the voice connection for good; `cause` is the word in the facts."""

    def __init__(self, cause: str) -> None:
        self.cause = cause
        super().__init__(f"Discord ended the voice connection: {cause.replace('_', ' ')}")
