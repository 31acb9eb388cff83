"""
What can go wrong in the loopback Discord, by whose fault.

    LoopbackError
    ├── MalformedMessageError    a client sent bytes that do not parse
    ├── NotConnectedError        the test asked for something that needs the bot in the call
    ├── PlanError                a call was asked for that cannot be planned
    ├── ClientError              a person tried what Discord's own client does not offer
    └── ApiError                 a request over REST that Discord refuses
"""

from contracts.errors import RetoldError


class LoopbackError(RetoldError):
    """The loopback Discord cannot go on; see the cause."""


class MalformedMessageError(LoopbackError):
    """A client's message does not parse."""


class NotConnectedError(LoopbackError):
    """The bot is not in the call; wait for it with `wait_for_bot` first."""


class PlanError(LoopbackError):
    """The call cannot be planned; ask for more seconds or fewer speakers."""


class ClientError(LoopbackError):
    """Discord's client offers no such command, option or button to this person."""


class ApiError(LoopbackError):
    """Discord refuses a request: HTTP status, JSON code, message."""

    def __init__(self, status: int, code: int, message: str) -> None:
        self.status = status
        self.code = code
        super().__init__(message)
