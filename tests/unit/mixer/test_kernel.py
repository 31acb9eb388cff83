"""The compiled loops: right by numpy, the same bits of every compiler, and a clear word where there is none."""

from __future__ import annotations

import ctypes
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from mixer import kernel as module
from mixer.errors import KernelMissingError
from mixer.kernel import FLAGS, SOURCE, kernel
from mixer.limiter import _PHASES, FRAME_STEPS, FRAME_TICKS, STEP_TICKS, step_peaks
from mixer.loudness import HOP_TICKS, _k_power, hop_powers
from mixer.mix import to_pcm
from tests.builders import speech_samples

SPEECH = np.ascontiguousarray(speech_samples(1.0)[:FRAME_TICKS], dtype=np.float32)
LOUD = (SPEECH / np.abs(SPEECH).max() * np.float32(1.5)).astype(np.float32)
TAPS = 12


def test_a_gain_runs_straight():
    total = np.full_like(SPEECH, 0.25)
    kernel().add(SPEECH.ctypes.data, total.ctypes.data, FRAME_TICKS, 0.5, 1 / FRAME_TICKS)
    assert total[:, 0] == pytest.approx(
        0.25 + SPEECH[:, 0] * np.linspace(0.5, 1.5, FRAME_TICKS, endpoint=False), abs=1e-6
    )


@pytest.mark.parametrize("bits", [16, 24])
def test_integers_are_the_nearest_and_clipped(bits: int):
    """Halves go to the even one."""
    scale, shift = (32767, 0) if bits == 16 else (8_388_607, 8)
    tricky = np.array([0.5, 1.5, 2.5, -0.5, -1.5, 0.49999, 4096.5]) / scale
    samples = np.concatenate((LOUD[:, 0], tricky.astype(np.float32)))
    expected = np.rint(np.clip(samples, -1, 1) * np.float32(scale)).astype(np.int64) << shift
    assert to_pcm(samples, bits=bits).tolist() == expected.tolist()


def test_power_is_that_of_the_filtered_spectrum():
    """Of hops that are followed by themselves: the standard's filter by a transform of all."""
    spectrum = np.fft.rfft(SPEECH.reshape(-1, HOP_TICKS).astype(np.float64))
    twice = np.full(spectrum.shape[1], 2.0)
    twice[[0, -1]] = 1
    weight = _k_power(np.fft.rfftfreq(HOP_TICKS, 1 / FRAME_TICKS)) * twice / HOP_TICKS**2
    assert hop_powers(SPEECH) == pytest.approx(np.abs(spectrum) ** 2 @ weight, rel=0.01)


@pytest.mark.parametrize("safe", [0.3, 0.9])
def test_peaks_are_those_of_all_points(safe: float):
    """By numpy, every point looked at: a point among lower samples may be left out, others are equal."""
    flat = np.concatenate((np.zeros(TAPS - 1, dtype=np.float32), LOUD[:, 0]))
    points = np.abs(np.lib.stride_tricks.sliding_window_view(flat, TAPS)[:FRAME_TICKS].astype(np.float64) @ _PHASES.T)
    own = np.abs(flat[TAPS - 1 :])
    near = np.lib.stride_tricks.sliding_window_view(np.abs(flat), 4)[4 : 4 + FRAME_TICKS].max(axis=1) > safe
    each = np.maximum(np.where(near, points.max(axis=1), 0), np.where(own > safe, own, 0))
    largest, peaks = step_peaks(flat, safe=safe)
    assert largest == np.abs(flat).max()
    assert peaks == pytest.approx(each.reshape(-1, STEP_TICKS).max(axis=1), rel=1e-5)
    assert np.count_nonzero(peaks) > 3


def test_steps_are_turned_down_along_lines():
    gains = np.ones(FRAME_STEPS + 1, dtype=np.float32)
    gains[10:13] = 0.5, 0.25, 0.5
    samples = LOUD.copy()
    kernel().turn_down(samples.ctypes.data, gains.ctypes.data)
    line = np.interp(np.arange(FRAME_TICKS) / STEP_TICKS, np.arange(FRAME_STEPS + 1), gains)
    assert samples[:, 0] == pytest.approx(LOUD[:, 0] * line, abs=1e-6)
    assert np.array_equal(samples[13 * STEP_TICKS :], LOUD[13 * STEP_TICKS :])


@pytest.mark.parametrize("count", [0, 1, 2, 300])
def test_a_gated_mean_leaves_out_what_is_quiet_twice(count: int):
    """By numpy: those above a tenth of the mean, and of these again."""
    powers = np.random.default_rng(count).random(count) ** 8
    heard = powers
    for _ in range(2):
        heard = heard[heard > heard.mean() / 10] if len(heard) else heard
    found = kernel().gated_mean(powers.ctypes.data, count, 0.1, 2)
    assert found == pytest.approx(heard.mean() if count else 0)


def all_of_it(library: ctypes.CDLL) -> bytes:
    """What a library makes of some speech, by all of its loops but the decoder's."""
    powers, total = np.empty(10), np.full_like(LOUD, 0.1)
    near, far = np.linspace(-0.3, 0.2, 9), np.linspace(0.1, -0.4, 41)
    library.hop_powers(LOUD.ctypes.data, 10, 1.6, near.ctypes.data, far.ctypes.data, powers.ctypes.data)
    mean = library.gated_mean(powers.ctypes.data, 10, 0.1, 2)
    library.add(LOUD.ctypes.data, total.ctypes.data, FRAME_TICKS, 0.3, 1e-5)
    flat = np.concatenate((np.zeros(TAPS - 1, dtype=np.float32), total[:, 0]))
    peaks = np.empty(FRAME_STEPS, dtype=np.float32)
    most = library.step_peaks(flat.ctypes.data, _PHASES.ctypes.data, 0.4, peaks.ctypes.data)
    gains = np.append(1 / np.maximum(peaks, 1), np.float32(1)).astype(np.float32)
    library.turn_down(total.ctypes.data, gains.ctypes.data)
    short, deep = np.empty(FRAME_TICKS, dtype=np.int16), np.empty(FRAME_TICKS, dtype=np.int32)
    library.to_int16(total.ctypes.data, short.ctypes.data, FRAME_TICKS)
    library.to_int24(total.ctypes.data, deep.ctypes.data, FRAME_TICKS)
    return b"".join(each.tobytes() for each in (powers, np.array(mean), total, peaks, np.array(most), short, deep))


@pytest.mark.parametrize("compiler", ["gcc", "clang"])
@pytest.mark.parametrize("level", ["-O0", "-O2", "-O3"])
def test_every_compiler_makes_the_same_bits(compiler: str, level: str, tmp_path: Path):
    """Whatever it does to the loops."""
    if shutil.which(compiler) is None:
        pytest.skip(f"there is no {compiler} here")
    path = tmp_path / "kernel.so"
    flags = [level if flag == "-O3" else flag for flag in FLAGS]
    subprocess.run([compiler, *flags, "-Wall", "-Wextra", "-Werror", "-o", str(path), str(SOURCE)], check=True)
    assert all_of_it(module._declare(ctypes.CDLL(str(path)))) == all_of_it(kernel())


@pytest.fixture
def elsewhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """The source in a folder without a library."""
    monkeypatch.setattr(module, "SOURCE", Path(shutil.copy(SOURCE, tmp_path)))
    monkeypatch.setattr(module.importlib.util, "find_spec", lambda _name: None)
    return tmp_path


def test_without_a_compiler_it_says_what_to_do(elsewhere: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("PATH", str(elsewhere))
    monkeypatch.delenv("CC", raising=False)
    with pytest.raises(KernelMissingError, match=r"no C compiler here.*python -m mixer\.kernel.*ziglang"):
        module.compile_kernel()


def test_what_the_compiler_says_is_told(elsewhere: Path, monkeypatch: pytest.MonkeyPatch):
    """And another is tried first; nothing half made stays."""
    (elsewhere / "kernel.c").write_text("int add(")
    monkeypatch.setenv("CC", "no-such-compiler --fast")
    with pytest.raises(KernelMissingError, match=r"kernel\.c:1"):
        module.compile_kernel()
    assert [path.name for path in elsewhere.iterdir()] == ["kernel.c"]


def test_what_is_no_library_is_not_kept(elsewhere: Path, monkeypatch: pytest.MonkeyPatch):
    """An object file, another library, an empty file: it is compiled anew, or the next compiler does it."""
    monkeypatch.setenv("CC", "cc -c")
    made = module.compile_kernel()
    assert kernel.__wrapped__().step_peaks
    made.unlink()  # what is loaded must not change
    made.write_bytes(b"")
    assert kernel.__wrapped__().step_peaks
    made.unlink()
    subprocess.run([shutil.which("cc") or "cc", "-shared", "-xc", "/dev/null", "-o", made], check=True)
    assert kernel.__wrapped__().step_peaks
    monkeypatch.setenv("CC", "cc 'a")
    made.unlink()
    assert module.compile_kernel() == made
    assert sorted(path.name for path in elsewhere.iterdir()) == sorted(["kernel.c", made.name])


@pytest.mark.usefixtures("elsewhere")
def test_a_folder_that_takes_nothing_is_named(monkeypatch: pytest.MonkeyPatch):
    """Not even root may write into it."""
    monkeypatch.setattr(module, "_path", lambda: Path("/proc/self/kernel-1.so"))
    with pytest.raises(KernelMissingError, match=r"/proc/self/.*: "):
        module.compile_kernel()
