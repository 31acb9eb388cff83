"""Access to NATS JetStream: the only place that imports `nats`.

nats-py imports aiohttp wherever that is installed, for WebSockets, which we do not speak. It is kept from it: that was
a third of the time that a service without Discord takes to start (0.2 s of 0.6).
"""

import sys

if "aiohttp" not in sys.modules:
    sys.modules["aiohttp"] = None  # type: ignore[assignment]  # an import of it fails, and nats-py goes without
    try:
        import nats.aio.transport as _transport  # noqa: F401
    finally:
        del sys.modules["aiohttp"]
