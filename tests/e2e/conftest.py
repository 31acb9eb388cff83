"""Whole calls run on the event loop that capture runs on as a service."""

from __future__ import annotations

import asyncio

import pytest
import uvloop


@pytest.fixture(scope="session")
def event_loop_policy() -> asyncio.AbstractEventLoopPolicy:
    """Uvloop's."""
    return uvloop.EventLoopPolicy()
