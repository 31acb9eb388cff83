"""What every wire form ever published says: the value that each file of `tests/data/golden/` decodes to.

A file is never changed. A new tag, or a new struct that crosses a wire, gets a new file and a new line here; the file's
bytes are what `encode` makes of the value on the day it is added.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from contracts import artifacts, bundle, commands, directory, events, guilds, keeping, packets, recipes
from contracts.access import AccessClaims
from contracts.jetstream.revoked import Revocation
from contracts.links import LinkClaims

FOLDER = Path(__file__).parent / "data" / "golden"
SESSION = "06ykq3c0001zzzzz"
FACT: dict[str, Any] = {"session": SESSION, "at_ns": 1_234_567_890, "unix_ns": 1_790_000_001_234_567_890}
ADA, BELA = "300000000000000001", "300000000000000002"


class Golden(NamedTuple):
    """A file's value, and how the code reads and writes it."""

    value: Any
    decode: Callable[[bytes], Any]
    encode: Callable[[Any], bytes]


def _json(kind: type) -> Callable[[bytes], Any]:
    return msgspec.json.Decoder(kind).decode


def _fact(value: events.SessionFact) -> Golden:
    return Golden(value, events.decode_fact, events.encode_fact)


def _render_fact(value: artifacts.AnyRenderFact) -> Golden:
    return Golden(value, artifacts.decode_render_fact, artifacts.encode_render_fact)


def _reply(value: commands.Reply) -> Golden:
    return Golden(value, commands.decode_reply, commands.encode_reply)


def _request(value: msgspec.Struct) -> Golden:
    return Golden(value, _json(type(value)), msgspec.json.encode)


RECIPE = recipes.Recipe(
    output="mix",
    format="opus",
    people=(ADA, BELA),
    gain_db={ADA: -3.5},
    start_tick=4_320_000,
    stop_tick=34_560_000,
    bitrate_kbps=96,
)
ARTIFACT = artifacts.Artifact(
    name="0123456789abcdef-300000000000000001.flac",
    session=SESSION,
    filename="General Ada.flac",
    recipe=recipes.Recipe(output="tracks", format="flac", mute=(BELA,)),
    log_end=4321,
    engine="1+libopus 1.5.2",
    sha256="a3" * 32,
    bytes=987_654,
    duration_ticks=14_400_000,
    rendered_unix_ns=1_790_000_100_000_000_000,
    user_id=ADA,
    speaker="Ada",
    files=2,
)
TRACKS_RECIPE = recipes.Recipe(  # what a recipe could say since mixes are levelled
    output="tracks",
    container="reaper",
    format="wav",
    bits=24,
    mute=(BELA,),
    loudness="exact",
    levelling=True,
    gate_db=-52.5,
    silence="trim",
    chapters=False,
)
VBR_RECIPE = recipes.Recipe(vbr_quality=2, loudness="off", levelling=False)
ALIGNED_RECIPE = recipes.Recipe(alignment="hindsight")
ROOM_RECIPE = recipes.Recipe(same_room=True)
MEASURED_ARTIFACT = msgspec.structs.replace(
    ARTIFACT,
    name="0123456789abcdef-tracks.zip",
    filename="General tracks.zip",
    recipe=TRACKS_RECIPE,
    user_id=None,
    speaker="",
    loudness_lufs=-16.04,
    peak_dbtp=-1.2,
)
LOSSY_ARTIFACT = msgspec.structs.replace(ARTIFACT, losses=((48_000, 96_000, 3), (480_000, 528_000, 1)))
BATCH = packets.PacketBatch(
    take=1,
    ssrc=4_000_000_001,
    number=7,
    base_ns=2_000_000_000,
    packets=(
        packets.Packet(65_535, 4_294_967_040, 0, b"\x78opus one", packets.Outcome.VOICE, 30),
        packets.Packet(0, 704, 20_013, packets.SILENCE_FRAME, packets.Outcome.SILENCE),
        packets.Packet(1, 1664, -40, b"", packets.Outcome.PADDING),
        *(
            packets.Packet(number, 1664 + 960 * number, 20_000 * number, bytes([number]), outcome, 127)
            for number, outcome in enumerate(packets.Outcome, start=2)
            if outcome.undecryptable
        ),
    ),
)

GOLDEN: dict[str, Golden] = {
    "session_started.1.json": _fact(
        events.SessionStarted(
            id="f1",
            **FACT,
            guild_id="111",
            guild_name="The Guild",
            channel_id="222",
            channel_name="Général 🎲",
            name="Evening",
            started_by=ADA,
            boot_id="1f6d7f7e-0000-4000-8000-000000000000",
            boottime_ns=987_654_321,
            recorder="retold",
        )
    ),
    "session_started.1.mix.json": _fact(
        events.SessionStarted(
            id="f23",
            **FACT,
            guild_id="111",
            guild_name="The Guild",
            channel_id="222",
            channel_name="Tavern",
            mix=VBR_RECIPE,
        )
    ),
    "take_opened.1.json": _fact(
        events.TakeOpened(
            id="f2",
            **FACT,
            take=1,
            cause="start",
            channel_id="222",
            ssrc=55,
            mode="aead_xchacha20_poly1305_rtpsize",
            dave_version=1,
        )
    ),
    "take_closed.1.json": _fact(events.TakeClosed(id="f3", **FACT, take=1, cause="reconnect")),
    "epoch_changed.1.json": _fact(
        events.EpochChanged(
            id="f4", **FACT, take=1, epoch=3, dave_version=1, members=(ADA, BELA), privacy_code="12345 67890"
        )
    ),
    "speaker_joined.1.json": _fact(
        events.SpeakerJoined(id="f5", **FACT, take=1, user_id=ADA, name="Ada \u2603", bot=True)
    ),
    "speaker_left.1.json": _fact(events.SpeakerLeft(id="f6", **FACT, take=1, user_id=ADA)),
    "speaker_identified.1.json": _fact(
        events.SpeakerIdentified(id="f7", **FACT, take=1, ssrc=4_000_000_001, user_id=ADA, name="Ada", by="key")
    ),
    "note_added.1.json": _fact(events.NoteAdded(id="f8", **FACT, text='He said "no".\n', author=BELA)),
    "note_added.1.by_id.json": _fact(events.NoteAdded(id="f16", **FACT, text="here", author="Bela", author_id=BELA)),
    "panel_posted.1.json": _fact(events.PanelPosted(id="f17", **FACT, channel_id="333", message_id="444")),
    "notice_spoken.1.json": _fact(events.NoticeSpoken(id="f22", **FACT, language="de")),
    "consent_ruled.1.json": _fact(events.ConsentRuled(id="f18", **FACT, mode="opt-in")),
    "speaker_withheld.1.json": _fact(events.SpeakerWithheld(id="f19", **FACT, user_id=ADA, why="opted_out")),
    "speaker_admitted.1.json": _fact(events.SpeakerAdmitted(id="f20", **FACT, user_id=ADA)),
    "person_forgotten.1.json": _fact(
        events.PersonForgotten(id="f21", **FACT, user_id=ADA, messages=8, packets=195, kept_sha256="b4" * 32)
    ),
    "gap_recorded.1.json": _fact(
        events.GapRecorded(
            id="f11", **FACT, take=2, from_ns=1_000_000_000, to_ns=1_350_000_000, cause="session_invalid"
        )
    ),
    "recovery_begun.1.json": _fact(
        events.RecoveryBegun(id="f12", **FACT, take=2, action="rekey", cause="proposals_refused")
    ),
    "recorder_deafened.1.json": _fact(events.RecorderDeafened(id="f13", **FACT, take=2)),
    "recorder_undeafened.1.json": _fact(events.RecorderUndeafened(id="f14", **FACT, take=2)),
    "encryption_changed.1.json": _fact(events.EncryptionChanged(id="f15", **FACT, take=2, dave_version=0)),
    "sender_report.1.json": _fact(
        events.SenderReported(id="f10", **FACT, take=1, ssrc=4242, raw=bytes.fromhex("80c8000600001092") + bytes(20))
    ),
    "session_ended.1.json": _fact(
        events.SessionEnded(
            id="f9",
            **FACT,
            cause="stopped",
            tracks=(
                events.TrackCount(
                    take=1,
                    ssrc=4_000_000_001,
                    batches=8,
                    outcomes={"VOICE": 190, "SILENCE": 5, "NO_KEY": 2},
                    user_id=ADA,
                    duplicates=3,
                    lost=4,
                ),
                events.TrackCount(take=1, ssrc=56, batches=0, outcomes={}),
            ),
            ended_by=BELA,
            ignored={"rtcp": 12, "video": 1},
        )
    ),
    "packet_batch.1.msgpack": Golden(BATCH, packets.decode_batch, packets.encode_batch),
    "recipe.json": Golden(RECIPE, recipes.decode_recipe, recipes.encode_recipe),
    "recipe_tracks.json": Golden(TRACKS_RECIPE, recipes.decode_recipe, recipes.encode_recipe),
    "recipe_vbr.json": Golden(VBR_RECIPE, recipes.decode_recipe, recipes.encode_recipe),
    "recipe_aligned.json": Golden(ALIGNED_RECIPE, recipes.decode_recipe, recipes.encode_recipe),
    "recipe_room.json": Golden(ROOM_RECIPE, recipes.decode_recipe, recipes.encode_recipe),
    "artifact.json": Golden(ARTIFACT, _json(artifacts.Artifact), msgspec.json.encode),
    "artifact_lossy.json": Golden(LOSSY_ARTIFACT, _json(artifacts.Artifact), msgspec.json.encode),
    "artifact_measured.json": Golden(MEASURED_ARTIFACT, _json(artifacts.Artifact), msgspec.json.encode),
    "render_job.json": Golden(
        artifacts.RenderJob(id="0123456789abcdef", session=SESSION, recipe=RECIPE, requested_by=ADA),
        artifacts.decode_job,
        artifacts.encode_job,
    ),
    "render_progressed.1.json": _render_fact(
        artifacts.RenderProgressed(
            job="j", session=SESSION, unix_ns=FACT["unix_ns"], stage="render", fraction=0.25, eta_s=12.5
        )
    ),
    "render_stored.1.json": _render_fact(
        artifacts.RenderStored(
            job="j", session=SESSION, unix_ns=FACT["unix_ns"], artifacts=(ARTIFACT,), cached=True, elapsed_s=3.25
        )
    ),
    "render_cancelled.1.json": Golden(
        artifacts.RenderCancelled(job="j1", session=SESSION, unix_ns=FACT["unix_ns"], by="api"),
        artifacts.decode_render_fact,
        artifacts.encode_render_fact,
    ),
    "render_failed.1.json": _render_fact(
        artifacts.RenderFailed(
            job="j", session=SESSION, unix_ns=FACT["unix_ns"], reason="no such session", retrying=True
        )
    ),
    "start_recording.json": _request(
        commands.StartRecording(guild_id="111", channel_id="222", name="Evening", requested_by=ADA)
    ),
    "start_recording.panel.json": _request(
        commands.StartRecording(
            guild_id="111", channel_id="222", name="Evening", requested_by=ADA, panel_channel_id="333"
        )
    ),
    "start_recording.mix.json": _request(commands.StartRecording(guild_id="111", channel_id="222", mix=ALIGNED_RECIPE)),
    "stop_recording.cause.json": _request(commands.StopRecording(guild_id="111", requested_by=ADA, cause="alone")),
    "place_panel.json": _request(commands.PlacePanel(guild_id="111", channel_id="333", message_id="444")),
    "choose_consent.json": _request(commands.ChooseConsent(guild_id="111", user_id=ADA, choice="out")),
    "forget_person.json": _request(commands.ForgetPerson(guild_id="111", user_id=ADA, session=SESSION)),
    "add_note.by_id.json": _request(
        commands.AddNote(guild_id="111", text="here", ago_s=2.5, author="Ada", author_id=ADA)
    ),
    "panel_placed.json": _reply(commands.PanelPlaced(session=SESSION)),
    "consent_chosen.json": _reply(commands.ConsentChosen(live_session=SESSION, earlier=3)),
    "forgotten.json": _reply(commands.Forgotten(sessions=(SESSION,), packets=195, later=("06ykq3c0002zzzzz",))),
    "guild_settings.json": Golden(
        guilds.GuildSettings(
            guild_id="111",
            consent="opt-in",
            opted_out=(ADA,),
            opted_in=(BELA,),
            language="de",
            recorder_role="555",
            downloads="managers",
            panel_channel_id="333",
            status_line=False,
            spoken_notice=False,
            nickname=True,
            auto=(guilds.AutoRule(channel_id="222", minimum=3, role_id="555", from_hour=18, to_hour=2),),
            never=("223",),
            to_forget=(f"{SESSION}/{ADA}",),
            stop_alone_s=0,
            most_hours=6.5,
        ),
        guilds.decode_guild,
        guilds.encode_guild,
    ),
    "guild_settings.tone.json": Golden(
        guilds.GuildSettings(guild_id="111", tone_minutes=5), guilds.decode_guild, guilds.encode_guild
    ),
    "auto_rule.json": _request(guilds.AutoRule(channel_id="222", minimum=3, role_id="555", from_hour=18, to_hour=2)),
    "stop_recording.json": _request(commands.StopRecording(guild_id="111", requested_by=ADA)),
    "add_note.json": _request(commands.AddNote(guild_id="111", text="here", ago_s=2.5, author=ADA)),
    "ask_status.json": _request(commands.AskStatus()),
    "started.json": _reply(commands.Started(session=SESSION)),
    "stopped.json": _reply(commands.Stopped(session=SESSION, duration_s=12.5, recorded=100, undecryptable=1, lost=2)),
    "noted.json": _reply(commands.Noted(session=SESSION, at_s=1.5)),
    "status.json": _reply(
        commands.Status(
            ready=True,
            sessions=(
                commands.LiveSession(
                    session=SESSION,
                    guild_id="111",
                    channel_id="222",
                    elapsed_s=4.5,
                    take=1,
                    packets={"recorded": 9, "undecryptable": 0, "lost": 0, "duplicates": 1},
                    unacked_batches=2,
                    held_packets=3,
                    dave_version=1,
                    last_packet_age_s=0.02,
                ),
            ),
        )
    ),
    "live_speaker.json": _request(commands.LiveSpeaker(user_id=ADA, name="Ada", state="heard")),
    "live_speaker.level.json": _request(
        commands.LiveSpeaker(user_id=ADA, name="Ada", state="heard", packets=500, lost=2, level_dbov=21)
    ),
    "refused.json": _reply(commands.Refused(code="not_ready", message="Try again in a moment.")),
    "session_entry.json": Golden(
        directory.SessionEntry(
            session=SESSION,
            guild_id="111",
            guild_name="The Guild",
            channel_id="222",
            channel_name="General",
            started_unix_ns=FACT["unix_ns"],
            name="Evening",
            ended_unix_ns=FACT["unix_ns"] + 1,
            duration_ns=60_000_000_000,
            cause="stopped",
            people={ADA: "Ada", BELA: "Bela"},
            recorded=100,
            undecryptable=1,
            lost=2,
        ),
        directory.decode_entry,
        directory.encode_entry,
    ),
    "session_entry.kept.json": Golden(
        directory.SessionEntry(
            session=SESSION,
            guild_id="111",
            guild_name="The Guild",
            channel_id="222",
            channel_name="General",
            started_unix_ns=FACT["unix_ns"],
            keeping=directory.Keeping(
                pinned=True,
                going_unix_ns=FACT["unix_ns"] + 2,
                going_why="age",
                told=True,
                deleted_unix_ns=FACT["unix_ns"] + 3,
                deleted_by=f"user:{ADA}",
                archived=directory.Archived(unix_ns=FACT["unix_ns"] + 1, messages=9, files=3, bytes=1_000),
                fetched_unix_ns=FACT["unix_ns"] + 4,
            ),
        ),
        directory.decode_entry,
        directory.encode_entry,
    ),
    "fetch_session.json": Golden(keeping.FetchSession(session=SESSION), keeping.decode_fetch, msgspec.json.encode),
    "fetching.json": Golden(
        keeping.Fetching(state="waiting", fraction=0.25, reason="S3 is away"),
        keeping.decode_fetching,
        msgspec.json.encode,
    ),
    "guild_settings.kept.json": Golden(
        guilds.GuildSettings(guild_id="111", keep_days=30), guilds.decode_guild, guilds.encode_guild
    ),
    "session_entry.panel.json": Golden(
        directory.SessionEntry(
            session=SESSION,
            guild_id="111",
            guild_name="The Guild",
            channel_id="222",
            channel_name="General",
            started_unix_ns=FACT["unix_ns"],
            name="Evening",
            ended_unix_ns=FACT["unix_ns"] + 1,
            duration_ns=60_000_000_000,
            cause="stopped",
            people={BELA: "Bela"},
            recorded=100,
            undecryptable=1,
            lost=2,
            started_by=BELA,
            notes=("f8",),
            panel_channel_id="333",
            panel_message_id="444",
            forgotten=(ADA,),
        ),
        directory.decode_entry,
        directory.encode_entry,
    ),
    "session_entry.mix.json": Golden(
        directory.SessionEntry(
            session=SESSION,
            guild_id="111",
            guild_name="The Guild",
            channel_id="222",
            channel_name="General",
            started_unix_ns=FACT["unix_ns"],
            mix=VBR_RECIPE,
        ),
        directory.decode_entry,
        directory.encode_entry,
    ),
    "revocation.json": Golden(
        Revocation(unix_ns=FACT["unix_ns"], by=ADA, reason="posted in public"), _json(Revocation), msgspec.json.encode
    ),
    "link_claims.json": Golden(
        LinkClaims(
            sub=ADA,
            ses=SESSION,
            act="download",
            obj=ARTIFACT.name,
            iat=1_790_000_000,
            exp=1_790_086_400,
            jti="abc_-1",
            may=("remix",),
            uses=3,
        ),
        _json(LinkClaims),
        msgspec.json.encode,
    ),
    "link_claims.bound.json": Golden(
        LinkClaims(
            sub=ADA, ses=SESSION, act="page", obj="", iat=1_790_000_000, exp=1_790_086_400, jti="abc_-3", who=ADA
        ),
        _json(LinkClaims),
        msgspec.json.encode,
    ),
    "access_claims.json": Golden(
        AccessClaims(
            sub="bot", scope=("read", "render"), iat=1_790_000_000, exp=1_790_086_400, jti="abc_-2", guild="1"
        ),
        _json(AccessClaims),
        msgspec.json.encode,
    ),
}

BUNDLE_FILE = "whole.1.bundle"
BUNDLE_HEADER = bundle.BundleHeader(SESSION, 1_790_000_200_000_000_000, "retold")
BUNDLE_MESSAGES = (
    bundle.BundleMessage(f"rec.{SESSION}.evt", "f1", events.encode_fact(GOLDEN["session_started.1.json"].value)),
    bundle.BundleMessage(f"rec.{SESSION}.pkt.1.4000000001", BATCH.message_id, packets.encode_batch(BATCH)),
    bundle.BundleMessage(f"rec.{SESSION}.evt", "", b""),
)
