"""What holds for all tests: each runs on the event loop that its service runs on."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping

import pytest
import uvloop


def pytest_asyncio_loop_factories(item: pytest.Item) -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    """Uvloop for capture and for whole calls, which it records; Python's own for the others."""
    path = item.path
    if path.parent.name == "e2e" or "capture" in path.name or path.parent.name == "capture":
        return {"uvloop": uvloop.new_event_loop}
    return {"asyncio": asyncio.new_event_loop}
