"""The base of every error that Retold raises on purpose.

    RetoldError
      SettingsError        the operator's: every wrong setting at once, by name
      MalformedError       bytes that are not what they should be
        BundleError        a bundle file that cannot be read
      LinkError            a link that must not open (see contracts.links)
      UnavailableError     a needed service is away

A class's docstring is its default message and says what to do.
"""

from __future__ import annotations

import inspect


class RetoldError(Exception):
    """Something went wrong."""

    def __init__(self, message: str | None = None) -> None:
        super().__init__(message or inspect.cleandoc(type(self).__doc__ or type(self).__name__))


class SettingsError(RetoldError):
    """Settings are wrong; each is named with what it needs."""

    def __init__(self, problems: list[str]) -> None:
        self.problems = problems
        super().__init__("\n".join(problems))


class MalformedError(RetoldError):
    """The bytes are not what they should be."""


class UnavailableError(RetoldError):
    """A needed service is away; start it and try again."""
