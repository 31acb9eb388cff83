"""Every format opens in its own judge, with its tags and chapters, and all of them agree in time."""

from __future__ import annotations

import asyncio
import json
import re
import shutil
import subprocess
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from contracts.clock import TICKS_PER_SECOND
from contracts.presets import PRESETS
from contracts.recipes import Recipe
from mixer.engine import engine_string
from mixer.formats.ffmpeg import find_ffmpeg
from mixer.logfile import write_log
from mixer.render import Order, RenderedFile, render
from tests.builders import Built, Network, build_session, replay_of
from tests.ebur128 import measure
from tests.judge import decode_file

SECONDS = 12.0
PLAN = [[(1.0, 4.0), (7.5, 10.5)], [(3.0, 8.0)]]
NOTES = ((2.5, "The = dragon; wakes"), (9.0, 'Größe 🎲 "x"'))
CHAPTERS = [(0.0, 2.5, "Start"), (2.5, 9.0, NOTES[0][1]), (9.0, 12.0, NOTES[1][1])]
LIMIT_DBTP = -1.0
ARRIVAL_S = 0.05  # a frame and the network: the recorder's clock is that of arrivals
NEAR_S = 0.0011  # chapters of ID3, MP4 and Ogg count milliseconds
DELAY_S = 0.0235  # FFmpeg counts chapters from the encoder's delay when it writes them down again
OLD_TAIL = 1024  # samples: an FFmpeg before 6 plays the last AAC frame to its end
KINDS = ("flac", "wav", "mp3", "m4a", "opus")


Make = Callable[..., tuple[RenderedFile, ...]]


@pytest.fixture(scope="module")
def built() -> Built:
    return build_session(SECONDS, 2, seed=3, plan=PLAN, network=Network(jitter_ms=3), speech=True, notes=NOTES)


@pytest.fixture(scope="module")
def log(built: Built, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("log") / "log"
    asyncio.run(write_log(path, built.session, replay_of(built.messages)))
    return path


def make(log: Path, built: Built, directory: Path, **fields: object) -> tuple[RenderedFile, ...]:
    directory.mkdir(parents=True, exist_ok=True)
    ffmpeg = find_ffmpeg()
    order = Order(
        session=built.session,
        recipe=Recipe(**fields),  # type: ignore[arg-type]  # a test's own fields
        log_end=len(built.messages),
        engine=engine_string(ffmpeg),
        ffmpeg=ffmpeg,
    )
    return render(log, order, directory).files


@pytest.fixture(scope="module")
def made(log: Path, built: Built, tmp_path_factory: pytest.TempPathFactory) -> Make:
    """The session's files by a recipe's fields, each recipe rendered once."""
    known: dict[str, tuple[RenderedFile, ...]] = {}

    def find(**fields: object) -> tuple[RenderedFile, ...]:
        key = repr(sorted(fields.items()))
        if key not in known:
            known[key] = make(log, built, tmp_path_factory.mktemp("made"), **fields)
        return known[key]

    return find


def judged(*command: str | Path) -> str:
    """What a judge says, or a skip where it is not installed; it must be content."""
    if shutil.which(str(command[0])) is None:
        pytest.skip(f"{command[0]} is not installed")
    done = subprocess.run([str(part) for part in command], capture_output=True, check=False, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def told(path: Path) -> tuple[dict[str, str], list[tuple[float, float, str]]]:
    """Tags and chapters, as FFmpeg reads them."""
    stream = ["-map_metadata", "0:s:0"] if path.suffix == ".opus" else []  # Ogg's tags are the stream's
    command = [find_ffmpeg().path, "-v", "error", "-i", str(path), *stream, "-f", "ffmetadata", "-"]
    text = subprocess.run(command, capture_output=True, check=True, text=True).stdout
    head, *parts = re.sub(r"\\(.)", r"\1", text).split("[CHAPTER]\n")
    tags = dict(line.split("=", 1) for line in head.splitlines()[1:] if "=" in line)
    chapters = []
    for part in parts:
        fields = dict(line.split("=", 1) for line in part.splitlines() if "=" in line)
        base = float(fields["TIMEBASE"].split("/")[1])
        chapters.append((int(fields["START"]) / base, int(fields["END"]) / base, fields["title"]))
    return {key.lower(): value for key, value in tags.items()}, chapters


def same_chapters(found: list[tuple[float, float, str]], near_s: float = DELAY_S) -> bool:
    return len(found) == len(CHAPTERS) and all(
        abs(one[0] - other[0]) < near_s and one[2] == other[2] for one, other in zip(found, CHAPTERS, strict=True)
    )


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("output", ["mix", "tracks"])
def test_tags_and_chapters_read_back(made: Make, kind: str, output: str):
    """Title, date, speakers; every note a chapter, at its millisecond."""
    file = made(output=output, format=kind)[0]
    tags, chapters = told(Path(file.path))
    assert tags["title"] == "Curse of Strahd / 7"
    assert tags["artist"] == ("Speaker 0, Speaker 1" if output == "mix" else "Speaker 0")
    assert tags["date"].startswith("2026")
    if kind != "wav":  # it has no chapters
        assert same_chapters(chapters), chapters


@pytest.mark.parametrize("kind", ["flac", "mp3", "m4a", "opus"])
def test_chapters_stand_at_their_millisecond(made: Make, kind: str):
    path = made(format=kind)[0].path
    said = json.loads(judged("ffprobe", "-v", "error", "-show_chapters", "-of", "json", path))["chapters"]
    found = [(float(one["start_time"]), float(one["end_time"]), one["tags"]["title"]) for one in said]
    assert same_chapters(found, NEAR_S), found


def test_no_chapters_if_the_recipe_wants_none(made: Make):
    assert told(Path(made(format="mp3", chapters=False)[0].path))[1] == []


def lag(one: np.ndarray, other: np.ndarray) -> int:
    """By how many samples the other is later, by cross-correlation."""
    size = 1 << (len(one) + len(other)).bit_length()
    spectrum = np.fft.rfft(other[:, 0], size) * np.conj(np.fft.rfft(one[:, 0], size))
    best = int(np.argmax(np.fft.irfft(spectrum, size)))
    return best if best < size // 2 else best - size


@pytest.mark.parametrize(
    "fields",
    [
        {"format": "flac"},
        {"format": "flac", "bits": 24},
        {"format": "wav", "bits": 24},
        {"format": "mp3"},
        {"format": "mp3", "bitrate_kbps": 64},
        {"format": "mp3", "vbr_quality": 4},
        {"format": "m4a"},
        {"format": "m4a", "bitrate_kbps": 64},
        {"format": "opus"},
    ],
    ids=str,
)
def test_all_formats_of_a_session_agree_to_the_sample(made: Make, fields: dict):
    """Encoder delay, pre-skip and edit lists: each decodes to the WAV's length, and its sound lies on the WAV's."""
    plain = decode_file(Path(made(format="wav", loudness="off", levelling=False)[0].path))
    other = decode_file(Path(made(loudness="off", levelling=False, **fields)[0].path))
    assert len(plain) == SECONDS * TICKS_PER_SECOND
    assert 0 <= len(other) - len(plain) < (OLD_TAIL if fields["format"] == "m4a" else 1)
    assert lag(plain, other) == 0


def test_the_opus_copy_lies_where_the_decoded_track_lies(made: Make):
    """On its grid of 2.5 ms: at most half of that off."""
    copies = made(output="tracks", format="opus")
    tracks = made(output="tracks", format="wav")
    for copy, track in zip(copies, tracks, strict=True):
        assert abs(lag(decode_file(Path(track.path)), decode_file(Path(copy.path)))) <= 60


def test_deep_files_hold_deep_samples(made: Make):
    """24 bits: FLAC and WAV agree to the last, and differ from 16 by less than a step."""
    deep = [decode_file(Path(made(format=kind, bits=24)[0].path)) for kind in ("flac", "wav")]
    plain = decode_file(Path(made(format="wav")[0].path))
    assert np.array_equal(*deep)
    assert 0 < np.abs(deep[0] - plain).max() < 1.5 / 32768  # half a step of rounding, and one between 32767 and 32768


@pytest.mark.parametrize("kind", ["mp3", "m4a", "opus"])
@pytest.mark.parametrize("kbps", [None, 64])
def test_a_lossy_encoder_does_not_lift_peaks_over_the_limit(made: Make, kind: str, kbps: int | None):
    file = made(format=kind, bitrate_kbps=kbps)[0]
    assert measure(Path(file.path)).peak_dbtp <= LIMIT_DBTP


def test_flac_passes_its_own_test(made: Make):
    for bits in (16, 24):
        assert "ok" in judged("flac", "-t", made(format="flac", bits=bits)[0].path)


def test_opus_passes_opusinfo(made: Make):
    for output in ("mix", "tracks"):
        said = judged("opusinfo", made(output=output, format="opus")[0].path)
        assert "ERROR" not in said
        assert "WARNING" not in said
        assert "CHAPTER001NAME" in said


def test_m4a_and_mp3_pass_ffprobe(made: Make):
    for kind, codec in (("m4a", "aac"), ("mp3", "mp3")):
        path = made(format=kind)[0].path
        said = json.loads(judged("ffprobe", "-v", "error", "-show_streams", "-show_format", "-of", "json", path))
        assert said["streams"][0]["codec_name"] == codec
        assert float(said["format"]["duration"]) == pytest.approx(SECONDS, abs=0.05)


def test_vbr_is_variable_and_cbr_is_not(made: Make):
    """The Xing header of the one, the Info header of the other; VBR makes the silence cheap."""
    constant = Path(made(format="mp3")[0].path).read_bytes()
    variable = Path(made(format="mp3", vbr_quality=4)[0].path).read_bytes()
    assert b"Info" in constant
    assert b"Xing" in variable
    assert len(variable) < len(constant)


@pytest.mark.parametrize("kind", ["opus", "flac"])
def test_a_matroska_file_holds_every_track(made: Make, kind: str):
    """One stream per speaker, with the name; each sounds as the track alone does, to the sample."""
    (file,) = made(output="tracks", container="matroska", format=kind)
    assert file.filename.endswith(" - tracks.mka")
    alone = made(output="tracks", format=kind)
    for number, track in enumerate(alone):
        found = decode_stream(Path(file.path), number)
        expected = decode_file(Path(track.path))
        assert lag(expected, found) == 0
        assert abs(len(found) - len(expected)) <= 960
        same = min(len(found), len(expected))
        assert np.allclose(found[:same], expected[:same], atol=2e-4)
    assert same_chapters(told(Path(file.path))[1])


def decode_stream(path: Path, number: int) -> np.ndarray:
    command = [
        find_ffmpeg().path,
        "-v",
        "error",
        "-i",
        str(path),
        "-map",
        f"0:a:{number}",
        "-ac",
        "1",
        "-f",
        "f32le",
        "-",
    ]
    return np.frombuffer(subprocess.run(command, capture_output=True, check=True).stdout, "<f4").reshape(-1, 1)


def test_mkvmerge_finds_tracks_names_and_chapters(made: Make):
    path = made(output="tracks", container="matroska", format="opus")[0].path
    said = json.loads(judged("mkvmerge", "-J", path))
    assert [track["properties"]["track_name"] for track in said["tracks"]] == ["Speaker 0", "Speaker 1"]
    assert {track["codec"] for track in said["tracks"]} == {"Opus"}
    assert said["chapters"][0]["num_entries"] == len(CHAPTERS)
    assert not said["errors"] + said["warnings"]
    assert "Error" not in judged("mkvinfo", path)


def test_a_zip_holds_tracks_notes_and_report(made: Make, log: Path, built: Built, tmp_path: Path):
    """Stored, its checksums right, the tracks the very files that come alone; made again, the same bytes."""
    (file,) = made(output="tracks", container="zip", format="flac")
    alone = made(output="tracks", format="flac")
    with zipfile.ZipFile(file.path) as archive:
        assert archive.testzip() is None
        assert {entry.compress_type for entry in archive.infolist()} == {zipfile.ZIP_STORED}
        assert archive.namelist()[:2] == ["Speaker 0.flac", "Speaker 1.flac"]
        for name, track in zip(archive.namelist(), alone, strict=False):
            assert archive.read(name) == Path(track.path).read_bytes()
        assert "Speaker 1.flac" in archive.read("info.txt").decode()
        assert [one["name"] for one in json.loads(archive.read("report.json"))["speakers"]] == [
            "Speaker 0",
            "Speaker 1",
        ]
        assert archive.read("notes.txt").decode().splitlines()[0] == f"0:00:02  {NOTES[0][1]}"
    again = make(log, built, tmp_path / "again", output="tracks", container="zip", format="flac")[0]
    assert again.sha256 == file.sha256
    assert [path.name for path in (tmp_path / "again").iterdir()] == [file.name], "no track is left beside it"


def test_an_audacity_project_lists_files_and_labels(made: Make):
    """The `.lof` names files that are there; labels are start, end and title by tabs."""
    (file,) = made(output="tracks", container="audacity", format="wav")
    assert " - audacity " not in file.filename
    with zipfile.ZipFile(file.path) as archive:
        (listed,) = [name for name in archive.namelist() if name.endswith(".lof")]
        files = re.findall(r'^file "([^"]+)" offset ([0-9.]+)$', archive.read(listed).decode(), re.MULTILINE)
        assert files == [("Speaker 0.wav", "0.000000"), ("Speaker 1.wav", "0.000000")]
        assert {name for name, _ in files} <= set(archive.namelist())
        labels = [line.split("\t") for line in archive.read("labels.txt").decode().splitlines()]
    assert [(float(start), float(stop), title) for start, stop, title in labels] == [
        (at, at, text) for at, text in NOTES
    ]


def test_a_reaper_project_has_tracks_items_and_markers(made: Make):
    """Its grammar holds: every block closed, every string quoted; sources are the files beside it."""
    (file,) = made(output="tracks", container="reaper", format="flac")
    with zipfile.ZipFile(file.path) as archive:
        (listed,) = [name for name in archive.namelist() if name.endswith(".rpp")]
        project = parse_rpp(archive.read(listed).decode())
        present = set(archive.namelist())
    assert project[0][0] == "REAPER_PROJECT"
    tracks = [child for child in project[1] if isinstance(child, tuple) and child[0][0] == "TRACK"]
    assert [field(track, "NAME")[1] for track in tracks] == ["Speaker 0", "Speaker 1"]
    for track in tracks:
        (item,) = [child for child in track[1] if isinstance(child, tuple)]
        assert (float(field(item, "POSITION")[1]), float(field(item, "LENGTH")[1])) == (0.0, SECONDS)
        (source,) = [child for child in item[1] if isinstance(child, tuple)]
        assert source[0] == ["SOURCE", "FLAC"]
        assert field(source, "FILE")[1] in present
    markers = [line for line in project[1] if isinstance(line, list) and line[0] == "MARKER"]
    assert [(float(line[2]), line[3]) for line in markers] == list(NOTES)


def parse_rpp(text: str) -> tuple:
    """A Reaper project: blocks `<NAME ...` to `>`, lines of words, words in one of three quotes."""
    stack: list[tuple[list[str], list]] = [([], [])]
    for line in text.splitlines():
        words = [a or b or c or d for a, b, c, d in re.findall(r""""([^"]*)"|'([^']*)'|`([^`]*)`|(\S+)""", line)]
        if words[0].startswith("<"):
            block = ([words[0][1:], *words[1:]], [])
            stack[-1][1].append(block)
            stack.append(block)
        elif words == [">"]:
            stack.pop()
        else:
            stack[-1][1].append(words)
    assert len(stack) == 1, "a block is not closed"
    return stack[0][1][0]


def field(block: tuple, name: str) -> list[str]:
    return next(line for line in block[1] if isinstance(line, list) and line[0] == name)


@pytest.mark.parametrize("container", ["zip", "audacity", "reaper", "matroska"])
def test_a_container_is_the_same_bytes_every_time(log: Path, built: Built, tmp_path: Path, container: str):
    shas = {
        make(log, built, tmp_path / side, output="tracks", container=container, format="flac")[0].sha256
        for side in ("one", "two")
    }
    assert len(shas) == 1


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_renders(made: Make, name: str):
    """Every preset makes its file, and says what it is."""
    preset = PRESETS[name]
    (file,) = made(**{field: getattr(preset, field) for field in preset.__struct_fields__})
    assert file.name.endswith(f".{preset.extension}")
    assert file.bytes > 0
    if preset.aims_at == "exact":
        assert measure(Path(file.path)).loudness_lufs == pytest.approx(-16.0, abs=0.5)


def test_trimmed_files_move_together(made: Make):
    """Half a second is left before the first voice and after the last, in mix, tracks and copies alike; notes move."""
    mix = made(format="wav", silence="trim", loudness="off", levelling=False)[0]
    whole = decode_file(Path(made(format="wav", loudness="off", levelling=False)[0].path))
    found = decode_file(Path(mix.path))
    assert len(found) == mix.duration_ticks < len(whole)
    cut = 0.5 + lag(found, whole) / TICKS_PER_SECOND
    assert cut == pytest.approx(PLAN[0][0][0] + ARRIVAL_S, abs=0.05)
    for kind in ("flac", "opus"):
        tracks = made(output="tracks", format=kind, silence="trim")
        assert {file.duration_ticks for file in tracks} == {mix.duration_ticks}
        assert {len(decode_file(Path(file.path))) for file in tracks} == {mix.duration_ticks}
    (_, moved, _) = told(Path(made(format="m4a", silence="trim")[0].path))[1]
    assert moved[0] == pytest.approx(NOTES[0][0] - cut + 0.5, abs=0.01)


@pytest.mark.parametrize("kind", ["dat", "json"])
def test_peaks_of_every_track(made: Make, kind: str):
    """One file per speaker, of the track's length, loud where it speaks."""
    for file, spoke in zip(made(output="tracks", format=kind), PLAN, strict=True):
        data = Path(file.path).read_bytes()
        pairs = np.frombuffer(data, np.int8, offset=24) if kind == "dat" else np.array(json.loads(data)["data"])
        loud = np.abs(pairs.reshape(-1, 2)).max(axis=1)
        assert len(loud) == SECONDS * 20
        assert not loud[: int(20 * (spoke[0][0] - 0.1))].any()
        assert loud[int(20 * spoke[0][0]) + 4 : int(20 * spoke[0][1])].mean() > 3
