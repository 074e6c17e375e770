"""Clips in video files and animated pictures: what ffmpeg finds in them, and their frames one by one.

ffmpeg decodes, resamples, turns, scales and crops in its own process, frame after frame; only finished small
frames come here. The bundled ffmpeg comes without ffprobe, so what a file holds is read from what ffmpeg
itself prints about it.
"""

from __future__ import annotations

import re
import subprocess
import tempfile
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, cast

import imageio_ffmpeg
import numpy as np

from text2video_zero.errors import UserError
from text2video_zero.requests.fields import Size

if TYPE_CHECKING:
    from collections.abc import Generator, Sequence
    from io import BufferedReader
    from pathlib import Path

# No play lists, no lists of files: a stranger's clip must not make ffmpeg open something else. 64 megapixels is
# more than any camera films and less than what fills the memory.
CONTAINERS = (
    "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,gif,apng,webp_anim,mpegts,mpeg,mpegvideo,flv,asf,ogg,mxf,nut,ivf"
)
GUARDED = ["-format_whitelist", CONTAINERS, "-protocol_whitelist", "file,pipe", "-max_pixels", str(1 << 26)]
LENIENCE = 0.002  # seconds; some containers round their time stamps to milliseconds
DISCARDED = 4  # flag of packets that an edit list hides: they are decoded, but never shown
WITH_ALPHA = re.compile(r"yuva|gbrap|rgba|bgra|argb|abgr|ya\d|pal8")
ON_BLACK = ["format=gbrap", "premultiply=inplace=1", "format=gbrp"]
# ffmpeg's own decoders of VP8 and VP9 leave the alpha plane out.
ALPHA_DECODERS = {"vp8": "libvpx", "vp9": "libvpx-vp9"}
FORMATS_TO_GIVE = "an MP4, MOV, WebM, MKV, AVI or GIF, a picture, or a folder or zip of pictures"


@dataclass(frozen=True, eq=False)
class VideoStream:
    """The pictures of one file, as they are shown: turned upright, with square pixels.

    times: (f,) float64, seconds at which each frame appears, ascending; 0 is where the file begins.
    end: seconds at which the last frame disappears.  rotation: degrees by which the file asks to be turned.
    alpha: whether there may be transparent parts.  decoder: name of the decoder to ask for, "" for ffmpeg's choice.
    """

    path: Path
    times: np.ndarray
    end: float
    size: Size
    rotation: float
    has_audio: bool
    alpha: bool
    decoder: str

    @property
    def fps(self) -> float:
        """Frames per second, on average where they vary."""
        return float(len(self.times) / (self.end - self.times[0]))

    @property
    def variable_rate(self) -> bool:
        """Whether some frames stay much longer than others; less than that is the rounding of time stamps."""
        delays = np.diff(self.times)
        return len(delays) > 1 and bool(np.abs(delays - np.median(delays)).max() > 0.25 * np.median(delays))


def open_video(path: Path) -> VideoStream:
    """Look into a file without decoding more than a frame of it.

    Raises UserError when it is no video, holds no picture, or is damaged.
    """
    listing = _run([*GUARDED, "-i", f"file:{path}", "-map", "0:V:0?", "-c", "copy", "-copyinkf", "-f", "framecrc", "-"])
    header = listing.stderr.split("\nOutput #", 1)[0].split("\nStream mapping", 1)[0]
    if "Stream #0" in header and not re.search(r"Stream #0.*: Video:", header):
        raise UserError(f"The clip {path.name} holds no picture: give {FORMATS_TO_GIVE}.")
    times, end = _presentation_times(listing.stdout)
    if not len(times):
        raise _unreadable(path, listing.stderr)
    codec = re.search(r"Stream #0.*: Video: (\w+)", header)
    decoder = ALPHA_DECODERS.get(codec[1] if codec else "", "") if re.search(r"alpha_mode\s*: 1", header) else ""
    pixel_format, size = _first_frame(path, decoder)
    turned = re.search(r"rotation of (-?[\d.]+) degrees", header)
    return VideoStream(
        path,
        times,
        end,
        size,
        rotation=float(turned[1]) if turned else 0.0,
        has_audio=re.search(r"Stream #0.*: Audio:", header) is not None,
        alpha=WITH_ALPHA.match(pixel_format) is not None,
        decoder=decoder,
    )


def read_video(
    stream: VideoStream, fps: float | None, numbers: Sequence[int], scaled: Size, cropped: Size
) -> Generator[np.ndarray, None, None]:
    """Frames (h, w, 3) uint8 RGB of the size `cropped`, one after the other in the same array; fewer if some are lost.

    fps: None leaves the frames as they come; otherwise output frame k is what is on the screen at k / fps
        seconds after the first one, whatever the rate of the clip.
    numbers: of the wanted frames, ascending, counted after that resampling.
    scaled: what the whole picture is scaled to before its middle is cut out.

    Closing the generator stops ffmpeg. Raises UserError when not a single frame can be decoded.
    """
    filters = [
        *([] if fps is None else _resampling(fps)),
        _selection(numbers),
        *(ON_BLACK if stream.alpha else []),
        f"scale={scaled.width}:{scaled.height}:flags=bicubic+accurate_rnd+full_chroma_int",
        f"crop={cropped.width}:{cropped.height}",
    ]
    command = [*_command(), "-v", "error", *_input(stream.path, stream.decoder), "-map", "0:V:0"]
    output = ["-frames:v", str(len(numbers)), "-fps_mode", "passthrough", "-f", "rawvideo", "-pix_fmt", "rgb24", "-"]
    picture = np.empty((cropped.height, cropped.width, 3), np.uint8)
    read = 0
    with (
        tempfile.TemporaryFile() as complaints,
        subprocess.Popen(  # noqa: S603
            [*command, "-vf", ",".join(filters), *output], stdout=subprocess.PIPE, stderr=complaints
        ) as ffmpeg,
    ):
        try:
            while read < len(numbers) and _fill(cast("BufferedReader", ffmpeg.stdout), picture):
                read += 1
                yield picture
        finally:
            ffmpeg.kill()  # whoever stops waiting for a long clip does not want to wait for its end
        complaints.seek(0)
        message = complaints.read().decode(errors="replace")
    if not read:
        raise _unreadable(stream.path, message)


def _selection(numbers: Sequence[int]) -> str:
    """A filter that lets frames pass by their numbers; a run of them without a long list."""
    first, last = numbers[0], numbers[-1]
    if last - first + 1 == len(numbers):
        return f"trim=start_frame={first}"
    return f"select='{'+'.join(f'eq(n,{number})' for number in numbers)}'"


def _resampling(fps: float) -> list[str]:
    """Filters after which output frame k is the last one that appeared until k / fps."""
    rate = Fraction(fps).limit_denominator(100_000)
    return [f"settb=1/90000,setpts=PTS-STARTPTS-{round(LENIENCE * 90_000)}", f"fps=fps={rate}:round=up:start_time=0"]


def _fill(pipe: BufferedReader, picture: np.ndarray) -> bool:
    """Read one picture from a pipe; False at the end."""
    rest = picture.data.cast("B")
    while rest:
        size = pipe.readinto(rest)
        if not size:
            return False
        rest = rest[size:]
    return True


def _command() -> list[str]:
    try:
        return [imageio_ffmpeg.get_ffmpeg_exe(), "-hide_banner", "-nostdin", "-nostats"]
    except RuntimeError as error:
        raise UserError(f"Clips cannot be read without ffmpeg ({error}): install imageio-ffmpeg again.") from error


def _input(path: Path, decoder: str) -> list[str]:
    return [*GUARDED, *(["-c:v", decoder] if decoder else []), "-i", f"file:{path}"]


def _run(arguments: list[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(  # noqa: S603
        [*_command(), *arguments], capture_output=True, text=True, encoding="utf-8", errors="replace", check=False
    )


def _presentation_times(listing: str) -> tuple[np.ndarray, float]:
    """Times (f,) and the end in seconds, from ffmpeg's list of packets (framecrc), which is in decoding order."""
    tick = re.search(r"^#tb 0: (\d+)/(\d+)", listing, re.MULTILINE)
    packets = re.findall(r"^0, +(\S+), +(\S+), +(\d+), +\d+, \w+(?:, F=0x([0-9A-F]+))?", listing, re.MULTILINE)
    shown = sorted(
        (int(decoded if presented == "NOPTS" else presented), int(duration))
        for decoded, presented, duration, flags in packets
        if not int(flags or "0", 16) & DISCARDED
    )
    if not tick or not shown:
        return np.empty(0), 0.0
    seconds = int(tick[1]) / int(tick[2])
    times = np.array([ticks for ticks, _ in shown]) * seconds
    gaps = np.diff(times)
    last = shown[-1][1] * seconds or (float(np.median(gaps)) if len(gaps) else 1.0)
    return times, float(times[-1]) + last


def _first_frame(path: Path, decoder: str) -> tuple[str, Size]:
    """Pixel format and shown size, learnt by decoding one frame."""
    filters = ["-map", "0:V:0", "-frames:v", "1", "-vf", "showinfo=checksum=0", "-f", "null", "-"]
    finished = _run([*_input(path, decoder), *filters])
    found = re.search(r" n: *0 .*fmt:(\w+) .*sar:(\d+)/(\d+) s:(\d+)x(\d+)", finished.stderr)
    if found is None:
        raise _unreadable(path, finished.stderr)
    wide, high, width, height = (int(number) for number in found.groups()[1:])
    aspect = wide / high if wide and high else 1.0
    return found[1], Size(max(1, round(width * aspect)), height)


def _unreadable(path: Path, complaints: str) -> UserError:
    """One sentence with the first reason that ffmpeg gave, without the names of its parts and of folders here."""
    lines = [re.sub(r"^(\[[^\]]*\] *)+", "", line).strip() for line in complaints.splitlines()]
    known = re.compile(r"not found|nvalid data|not on whitelist|exceeds|corrupt|no such|decoder", re.IGNORECASE)
    reason = next((line for line in lines if known.search(line) and str(path) not in line), "it holds no frames")
    reason = "a kind of file that is not read" if "whitelist" in reason else reason
    return UserError(f"The clip {path.name} cannot be read ({reason}): give {FORMATS_TO_GIVE}.")
