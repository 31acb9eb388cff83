"""What the gateway counts and reads; what each figure means stands in `contracts.metrics.declared`.

Served on the gateway's own port, to those only who come without a proxy or from this machine: see `routes.health`.
"""

from __future__ import annotations

from contracts.metrics import declared
from contracts.metrics.figures import Figures


class Metrics:
    """Counters of this process.

    Attributes
    ----------
    figures
        Where they are exported, with what is read when somebody asks.
    """

    def __init__(self) -> None:
        self.figures = Figures()
        self._requests = self.figures.counter(declared.REQUESTS)
        self._sent_bytes = self.figures.counter(declared.SENT_BYTES)
        self._seconds = self.figures.counter(declared.REQUEST_SECONDS)
        self._handed_over = self.figures.counter(declared.HANDED_OVER)

    def count(self, *, route: str, status: int, sent_bytes: int, seconds: float) -> None:
        """A request was answered."""
        name = route or "none"
        self._requests.labels(name, str(status)).inc()
        self._sent_bytes.labels(name).inc(sent_bytes)
        self._seconds.labels(name).inc(seconds)

    def hand_over(self) -> None:
        """A download was left to nginx."""
        self._handed_over.inc()
