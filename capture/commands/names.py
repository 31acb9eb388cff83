"""Names and descriptions of commands and options in other languages, as Discord's clients show them."""

from __future__ import annotations

import tomllib
from functools import cache
from importlib.resources import files

import discord
from discord import app_commands

from capture.words.catalogue import DEFAULT, LANGUAGES


class Names(app_commands.Translator):
    """Translates from English by `names.<language>.toml`."""

    async def translate(
        self,
        string: app_commands.locale_str,
        locale: discord.Locale,
        context: app_commands.TranslationContextTypes,  # noqa: ARG002  # the same word means the same everywhere
    ) -> str | None:
        """The text in that language; None if it stays as it is."""
        language = locale.value.partition("-")[0]
        return names_in(language).get(string.message) if language in LANGUAGES and language != DEFAULT else None


@cache
def names_in(language: str) -> dict[str, str]:
    """English to that language."""
    text = files("capture.words").joinpath(f"names.{language}.toml").read_text(encoding="utf-8")
    return {str(key): str(value) for key, value in tomllib.loads(text).items()}
