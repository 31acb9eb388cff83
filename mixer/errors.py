"""What can go wrong in a render, by whose fault it is.

MixerError
RequestError         the asker's: the same request fails again, so it is not tried again
EncoderError         FFmpeg's; carries the last lines it said
FfmpegMissingError   the operator's
OpusMissingError     the operator's
KernelMissingError   the operator's
RenderProcessError   ours: the rendering process died
"""

from __future__ import annotations

from contracts.errors import RetoldError


class MixerError(RetoldError):
    """The render failed."""


class RequestError(MixerError):
    """What was asked for cannot be made from that session; ask for something else."""


class EncoderError(MixerError):
    """FFmpeg failed; its last lines say why."""


class FfmpegMissingError(MixerError):
    """No usable ffmpeg: install one with flac, libmp3lame and libopus, or name it in RETOLD_FFMPEG."""


class OpusMissingError(MixerError):
    """No libopus: install `opuslib-next-bundled`, or the system's libopus."""


class KernelMissingError(MixerError):
    """The mixer's inner loops are not compiled, and cannot be here: run `python -m mixer.kernel` with a C compiler."""


class RenderProcessError(MixerError):
    """The rendering process died; another try follows."""
