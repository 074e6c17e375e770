"""Clips that tests write, and what a frame of them tells."""

import dataclasses
import signal
import struct
import subprocess
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import av
import imageio_ffmpeg
import numpy as np

from text2video_zero.media import clip_reader
from text2video_zero.media.clips import Clip, probe, read_clip
from text2video_zero.media.frames import StoredFrames
from text2video_zero.requests.fields import Size

CASES = Path(__file__).parent / "cases"
NATIVE = Size(64, 64)


def ffmpeg(*arguments: object) -> None:
    exe = imageio_ffmpeg.get_ffmpeg_exe()
    subprocess.run([exe, "-v", "error", "-y", *map(str, arguments)], check=True, capture_output=True)


def described_video(path: Path) -> dict[str, object]:
    """What PyAV says about a file's video."""
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        coded = stream.codec_context
        ranges, spaces = {1: "tv", 2: "pc"}, {1: "bt709", 5: "bt470bg", 6: "smpte170m"}
        return {
            "codec": coded.name,
            "colours": (coded.pix_fmt, ranges.get(coded.color_range), spaces.get(coded.colorspace)),
            "size": (stream.width, stream.height),
            "fps": stream.average_rate,
            "duration": container.duration / av.time_base,
            "frames": stream.frames,
        }


@contextmanager
def hung_decoder() -> Iterator[subprocess.Popen]:
    """The process that decodes the next clip, which answers nothing as long as this is open."""
    probe(CASES / "sdr.mp4")
    waiting = clip_reader.IDLE.get_nowait()
    waiting._process.send_signal(signal.SIGSTOP)
    clip_reader.IDLE.put(waiting)
    try:
        yield waiting._process
    finally:
        waiting._process.kill()


def brightness(index: int) -> int:
    return 16 * (index + 1)


def counting(frames: int, height: int = 48, width: int = 64) -> np.ndarray:
    """(f, h, w, 3): frame k is wholly of brightness 16·(k + 1), so that a frame tells its number."""
    return np.stack([np.full((height, width, 3), brightness(index), np.uint8) for index in range(frames)])


def numbers(frames: np.ndarray) -> list[int]:
    """The numbers of frames of `counting`."""
    return [round(float(frame[frame.shape[0] // 2, frame.shape[1] // 2].mean()) / 16) - 1 for frame in frames]


def written(path: Path, frames: np.ndarray, fps: str | int, *output: object) -> Path:
    """A video of raw frames in any container and codec that ffmpeg knows."""
    height, width = frames.shape[1:3]
    raw = path.with_suffix(".raw")
    raw.write_bytes(frames.tobytes())
    layout = "rgba" if frames.shape[-1] == 4 else "rgb24"
    ffmpeg("-f", "rawvideo", "-pix_fmt", layout, "-s", f"{width}x{height}", "-r", fps, "-i", raw, *output, path)
    raw.unlink()
    return path


def read(path: Path, **changes) -> Clip:
    """The clip, with all its frames in memory."""
    clip = read_clip(path, **({"first_frame": 0, "frames": 100, "fps": None, "size": None, "native": NATIVE} | changes))
    assert isinstance(clip.frames, StoredFrames)
    return dataclasses.replace(clip, frames=np.asarray(clip.frames))


LOSSLESS = ("-c:v", "libx264", "-qp", "0", "-pix_fmt", "yuv444p")


def bare_png(path: Path, width: int, height: int) -> Path:
    """A black grey PNG of any size, packed without ever holding it."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    packer, left, body = zlib.compressobj(1), height * (1 + width), b""
    while left:
        body += packer.compress(bytes(min(left, 1 << 20)))
        left -= min(left, 1 << 20)
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", body + packer.flush()) + chunk(b"IEND", b""))
    return path


def repeating_mov(path: Path, chunks: int, samples_per_chunk: int) -> Path:
    """A MOV of raw pixels, 1x1 at 25 frames per second, all of whose chunks are the same bytes of the file."""

    def box(kind: bytes, *content: bytes) -> bytes:
        return struct.pack(">I4s", 8 + sum(map(len, content)), kind) + b"".join(content)

    def full(kind: bytes, *content: bytes) -> bytes:
        return box(kind, bytes(4), *content)

    frames, matrix = chunks * samples_per_chunk, struct.pack(">9I", 1 << 16, 0, 0, 0, 1 << 16, 0, 0, 0, 1 << 30)
    begin = box(b"ftyp", b"qt  ", bytes(4), b"qt  ")
    where = struct.pack(">I", len(begin) + 8) * chunks
    shape = struct.pack(">HHIIIH", 1, 1, 72 << 16, 72 << 16, 0, 1)
    raw = box(b"raw ", bytes(6), b"\0\1", bytes(16), shape, bytes(32), struct.pack(">Hh", 24, -1))
    samples = box(
        b"stbl",
        full(b"stsd", struct.pack(">I", 1), raw),
        full(b"stts", struct.pack(">3I", 1, frames, 1)),
        full(b"stsc", struct.pack(">4I", 1, 1, samples_per_chunk, 1)),
        full(b"stsz", struct.pack(">2I", 3, frames)),
        full(b"stco", struct.pack(">I", chunks), where),
    )
    here = box(b"dinf", full(b"dref", struct.pack(">I", 1), box(b"url ", b"\0\0\0\1")))
    media = box(
        b"mdia",
        full(b"mdhd", struct.pack(">5I", 0, 0, 25, frames, 0)),
        full(b"hdlr", b"mhlrvide", bytes(13)),
        box(b"minf", box(b"vmhd", b"\0\0\0\1", bytes(8)), here, samples),
    )
    track = box(b"tkhd", b"\0\0\0\7", struct.pack(">5I", 0, 0, 1, 0, frames), bytes(16), matrix, b"\0\1\0\0" * 2)
    movie = full(b"mvhd", struct.pack(">4I", 0, 0, 25, frames), b"\0\1\0\0\1\0", bytes(10), matrix, bytes(28))
    pixels = box(b"mdat", bytes(range(3)) * samples_per_chunk)
    path.write_bytes(begin + pixels + box(b"moov", movie, box(b"trak", track, media)))
    return path
