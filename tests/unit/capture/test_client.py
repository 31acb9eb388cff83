"""Whatever Discord says on the voice gateway, the poll task lives on and the listener hears what is meant."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from capture.clock import boottime_ns
from capture.voice.client import RecordingVoiceClient
from capture.voice.group import GroupKeys


class Listener:
    """Writes down what it is told."""

    def __init__(self) -> None:
        self.told: list[tuple[Any, ...]] = []

    def on_connected(self) -> None:
        """Op 4."""
        self.told.append(("connected",))

    def on_present(self, user_id: int) -> None:
        """Op 11."""
        self.told.append(("present", user_id))

    def on_left(self, user_id: int) -> None:
        """Op 13."""
        self.told.append(("left", user_id))

    def on_ssrc(self, user_id: int, ssrc: int) -> None:
        """Op 5 or 12."""
        self.told.append(("ssrc", user_id, ssrc))


def client() -> tuple[RecordingVoiceClient, Listener]:
    """A client without a connection: what arrives is given to it by hand."""
    made = RecordingVoiceClient.__new__(RecordingVoiceClient)
    listener = Listener()
    made._listener = listener
    made.video_ssrcs = set()
    made.speaking = set()
    made._ssrc_to_id, made._id_to_ssrc = {5: 6}, {6: 5}
    keys = GroupKeys(
        wire=lambda: made.ws,
        identity=lambda: (1, 2),
        clock=boottime_ns,
        recovered=made.on_recovery,
        parting=made.on_parting,
    )
    made._connection = SimpleNamespace(keys=keys)
    return made, listener


async def test_messages_are_told():
    """Key, names, people and video."""
    made, listener = client()
    for message in (
        {"op": 4, "d": {}},
        {"op": 11, "d": {"user_ids": ["1", "2"]}},
        {"op": 5, "d": {"user_id": "1", "ssrc": 10, "speaking": 1}},
        {
            "op": 12,
            "d": {"user_id": "2", "audio_ssrc": 20, "video_ssrc": 21, "streams": [{"ssrc": 21, "rtx_ssrc": 22}]},
        },
        {"op": 12, "d": {"user_id": "2", "audio_ssrc": 0}},
        {"op": 13, "d": {"user_id": "1"}},
    ):
        await made._on_message(None, message)
    assert listener.told == [
        ("connected",),
        ("present", 1),
        ("present", 2),
        ("ssrc", 1, 10),
        ("ssrc", 2, 20),
        ("left", 1),
    ]
    assert made.video_ssrcs == {21, 22}
    assert made._ssrc_to_id == {}


@pytest.mark.parametrize("op", [None, 4, 5, 11, 12, 13, 18, 20, 99, "4"])
@pytest.mark.parametrize(
    "data",
    [
        *(None, 7, "x", [], [1], {}),
        *({"user_id": None}, {"user_ids": 5}, {"user_ids": [None]}, {"streams": [1]}, {"streams": 3}),
        *({"user_id": "1", "ssrc": None}, {"streams": [{"ssrc": "x"}]}, {"user_id": "1", "audio_ssrc": []}),
    ],
)
async def test_no_message_ends_the_poll_task(op: object, data: object):
    """Any shape of any message is survived: an exception here would make the call go deaf, silently."""
    made, _listener = client()
    await made._on_message(None, {"op": op, "d": data})


async def test_a_listeners_mistake_does_not_end_the_poll_task():
    """It is logged, and the call goes on."""
    made, listener = client()

    def fail(_user_id: int) -> None:
        raise RuntimeError("a bug of ours")

    listener.on_present = fail
    await made._on_message(None, {"op": 11, "d": {"user_ids": ["1"]}})
