"""Clips in video files (PyAV): what is in them, and the frames that are on the screen at given moments.

A clip's times are learnt from its first packets; where they do not reach its end, from its header. Frames are sought,
so that minute 58 of an hour is there as soon as its beginning.
"""

from __future__ import annotations

import statistics
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise
from typing import TYPE_CHECKING, cast

import av
import av.filter
import av.logging
from av.stream import Discard, Disposition
from av.video.reformatter import Colorspace, ColorTrc, Interpolation, VideoReformatter
from PIL import Image

from text2video_zero.errors import UserError
from text2video_zero.media.decoding.facts import CONTAINERS, FORMATS_TO_GIVE, Facts
from text2video_zero.media.decoding.fitting import fitted, hlg_light, pq_light, tone_mapping
from text2video_zero.media.decoding.moments import chosen, moments, own_rate, varies

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator, Sequence
    from pathlib import Path

    from av.container import InputContainer
    from av.packet import Packet
    from av.video.codeccontext import VideoCodecContext
    from av.video.frame import VideoFrame
    from av.video.stream import VideoStream

    from text2video_zero.media.decoding.facts import Limits

# Where pictures carry no time of their own, or only that of their decoding: they are counted, at the header's rate.
COUNTED = frozenset({"avi", "mpegvideo", "h264", "hevc", "m4v"})
UNSEEKABLE = COUNTED - {"avi"}
# ffmpeg's own decoders of VP8 and VP9 leave the alpha plane out.
ALPHA_DECODERS = {"vp8": "libvpx", "vp9": "libvpx-vp9"}
EXACT = Interpolation.BICUBIC | Interpolation.ACCURATE_RND | Interpolation.FULL_CHR_H_INT
UNSPECIFIED = 2
STANDARD_DEFINITION = 576  # lines; what is taller and names no matrix is meant in that of HD, as players take it
HDR = {ColorTrc.SMPTE2084: pq_light, ColorTrc.ARIB_STD_B67: hlg_light}
SOUGHT_BEYOND = 5.0  # seconds from the start; what is nearer is decoded from the start
# Seconds before the wanted moment at which the search for a picture to begin with starts, then farther ahead.
MARGINS = (0.5, 5.0, 50.0)
TURNS = {
    90: Image.Transpose.ROTATE_90,
    180: Image.Transpose.ROTATE_180,
    270: Image.Transpose.ROTATE_270,
}
WEAVABLE = 4  # pixels; the deinterlacer takes no smaller pictures


@dataclass(frozen=True)
class Listing:
    """What the first packets of a clip tell, up to its end if that is near.

    times: seconds at which frames appear, ascending.  lasting: seconds that the last of them stays.
    first: the first frame, decoded.  whole: the clip ends with these.  size: bytes of them.
    """

    times: list[float]
    lasting: float
    first: VideoFrame
    whole: bool
    size: int


class Video:
    """The pictures of a video file, as they are shown: turned upright, with square pixels, progressive, in SDR.

    packets: read so far.
    """

    def __init__(self, path: Path, limits: Limits) -> None:
        self.packets = 0
        self._path, self._limits = path, limits
        self._complaint = "it holds no frames"
        self._entered = 0
        self._reformatter = VideoReformatter()
        with self._opened() as (container, stream):
            listing = self._listed(container, stream)
            self._format = container.format.name
            self._begin, self._lasting = listing.times[0], listing.lasting
            self._rotation = listing.first.rotation % 360
            self._aspect = float(stream.sample_aspect_ratio or 1)
            light = HDR.get(ColorTrc(listing.first.color_trc)) if listing.first.color_trc in HDR else None
            self._tones = tone_mapping(light) if light else None
            self.facts = self._facts(container, stream, listing)

    def pictures(self, numbers: Sequence[int], rate: float, target: tuple[int, int]) -> Iterator[Image.Image]:
        """Pictures, RGB of the target's size, that are on the screen at the moments number / rate.

        numbers: ascending.  Fewer pictures come where the clip is damaged; UserError where there is none.
        """
        counted = own_rate(self.facts, rate)
        wanted = moments(numbers, self.facts.fps if counted else rate)
        counted = counted or self._format in COUNTED
        lasting = 1 / self.facts.fps if counted else self._lasting
        shown, picture = None, None
        for frame in chosen(self._frames_from(wanted[0], counted=counted), wanted, lasting):
            if frame is not shown or picture is None:
                shown, picture = frame, self._picture(frame, target)
            yield picture
        if picture is None:
            raise ValueError(self._complaint)

    def _facts(self, container: InputContainer, stream: VideoStream, listing: Listing) -> Facts:
        times, first = listing.times, listing.first
        measured = len(times) / (times[-1] + listing.lasting - times[0])
        named = float(stream.average_rate or stream.guessed_rate or 0)
        uneven = self._format not in COUNTED and varies(times)
        # A header's rate has no rounding of time stamps in it, but it is not always true.
        true = named > 0 and (self._format in COUNTED or (not uneven and abs(named / measured - 1) < 0.02))
        fps = named if true or (named > 0 and not listing.whole) else measured
        seconds = len(times) / fps if listing.whole else self._estimated(container, stream, listing, fps)
        width, height = round(first.width * self._aspect), first.height
        self._limits.check_size(width, height)  # of pixels a thousand times as wide as high, say
        sideways = self._rotation in {90, 270}
        remarks = {"its HDR brightness is brought to that of a screen": self._tones is not None}
        remarks["deinterlaced"] = first.interlaced_frame
        return Facts(
            frames=len(times) if listing.whole else max(1, round(seconds * fps)),
            fps=fps,
            width=max(1, height if sideways else width),
            height=max(1, width if sideways else height),
            duration=seconds,
            start=times[0] - (container.start_time or 0) / av.time_base,
            has_audio=bool(container.streams.audio),
            rotation=float(self._rotation),
            variable_rate=uneven,
            transparent=_has_alpha(first),
            estimated=not listing.whole,
            remarks=tuple(remark for remark, holds in remarks.items() if holds),
        )

    def _estimated(self, container: InputContainer, stream: VideoStream, listing: Listing, fps: float) -> float:
        """Seconds of a clip that was not looked through, by its header, or else by its size."""
        if stream.duration and stream.time_base:
            return float(stream.duration * stream.time_base)
        if container.duration:
            return container.duration / av.time_base
        return len(listing.times) * container.size / listing.size / fps

    @contextmanager
    def _opened(self) -> Generator[tuple[InputContainer, VideoStream]]:
        guards = {"format_whitelist": CONTAINERS, "protocol_whitelist": "file"}
        # What it says before it fails is the reason that a person is told. Not while it decodes: its threads wait for
        # Python to write down what they say, and Python for them.
        av.logging.set_level(av.logging.ERROR)
        try:
            opened = av.open(f"file:{self._path}", "r", options=guards, metadata_errors="replace")
        except av.FFmpegError as error:
            raise ValueError(complaint(error)) from error
        finally:
            av.logging.set_level(None)
        with opened as container:
            pictured = [one for one in container.streams.video if not one.disposition & Disposition.attached_pic]
            if not pictured:
                raise UserError(f"The clip {self._path.name} holds no picture: give {FORMATS_TO_GIVE}.")
            # A still may stand before the moving pictures.
            stream = next((one for one in pictured if one.frames != 1), pictured[0])
            if getattr(stream, "codec_context", None) is None:
                raise ValueError("its codec is not known")
            self._limits.check_size(stream.width, stream.height)
            for other in container.streams:
                if other.index != stream.index:
                    other.discard = Discard.all
            yield container, stream

    def _listed(self, container: InputContainer, stream: VideoStream) -> Listing:
        decode = _decoder_of(stream)
        first: VideoFrame | None = None
        shown: list[tuple[int, int]] = []  # presentation time and duration, in ticks
        size, whole = 0, True
        for packet in self._packets(container, stream):
            first = first or next(iter(self._decoded(decode, packet)), None)
            size += packet.size
            if packet.size and not packet.is_discard:  # what an edit list hides is decoded, but never shown
                stamp = packet.dts if packet.pts is None else packet.pts
                shown.append((stamp or 0, packet.duration or 0))
            if len(shown) >= self._limits.listed or size >= self._limits.listed_bytes:
                whole = False
                first = first or next(iter(self._decoded(decode, None)), None)
                break
        if first is None or not shown:
            raise ValueError(self._complaint)
        tick = stream.time_base or Fraction(1)
        # What was recorded from the middle of a broadcast begins with frames that hang on others that are not there.
        decodable = [one for one in sorted(shown) if first.pts is None or one[0] >= first.pts]
        shown = decodable or sorted(shown)
        times = [float(stamp * tick) for stamp, _ in shown]
        usual = statistics.median(later - earlier for earlier, later in pairwise(times)) if len(times) > 1 else 0.0
        lasting = float(shown[-1][1] * tick) or usual or 1.0
        return Listing(times, lasting, first, whole, size)

    def _frames_from(self, moment: float, *, counted: bool) -> Iterator[tuple[float, VideoFrame]]:
        """Frames with their seconds since the first one, from a moment on or from a little before."""
        far = moment > SOUGHT_BEYOND and self._format not in UNSEEKABLE
        for margin in (*MARGINS, None) if far else (None,):
            with self._opened() as (container, stream):
                if margin is not None and not self._sought(container, stream, moment - margin):
                    continue
                frames = self._timed(container, stream, counted=counted, sought=margin is not None)
                first = next(frames, None)
                if first is not None and (margin is None or first[0] <= moment):
                    yield first
                    yield from frames
                    return

    def _sought(self, container: InputContainer, stream: VideoStream, moment: float) -> bool:
        """Go to a picture that can be decoded by itself and appears by a moment, if the container can."""
        tick = stream.time_base or Fraction(1)
        try:
            container.seek(round((self._begin + moment) / tick), stream=stream)
        except av.FFmpegError:
            return False
        return True

    def _timed(
        self, container: InputContainer, stream: VideoStream, *, counted: bool, sought: bool
    ) -> Iterator[tuple[float, VideoFrame]]:
        """Frames with their seconds since the clip's first one, ascending.

        counted: the seconds are those of their number at the clip's rate.
        sought: the first of them is not the clip's first.
        """
        fps, number, seconds = self.facts.fps, None if sought else 0, 0.0
        for frame in _progressive(self._frames(container, stream, from_key=sought)):
            stamp = None if frame.pts is None else frame.time - self._begin
            if counted:
                if number is None:
                    number = self._entered if self._format in COUNTED else round((stamp or 0) * fps)
                yield number / fps, frame
                number += 1
            else:
                seconds = max(seconds, seconds + 1 / fps if stamp is None else stamp)
                yield seconds, frame

    def _frames(self, container: InputContainer, stream: VideoStream, *, from_key: bool) -> Iterator[VideoFrame]:
        decode = _decoder_of(stream)
        entered = not from_key
        for packet in self._packets(container, stream):
            if not entered and packet.is_keyframe:
                entered, self._entered = True, packet.dts or 0
            if entered:
                yield from self._decoded(decode, packet)
        yield from self._decoded(decode, None)

    def _packets(self, container: InputContainer, stream: VideoStream) -> Iterator[Packet[VideoStream]]:
        """Packets up to the end, or to where the file is damaged."""
        try:
            for packet in container.demux(stream):
                self.packets += 1
                if self.packets > self._limits.packets:
                    raise ValueError(f"it has more than {self._limits.packets} parts to look through")
                yield packet
        except av.FFmpegError as error:
            self._complaint = complaint(error)

    def _decoded(
        self, decode: Callable[[Packet[VideoStream] | None], list[VideoFrame]], packet: Packet[VideoStream] | None
    ) -> list[VideoFrame]:
        """The frames that come out for a packet, None at the end; none where it is damaged."""
        try:
            return decode(packet)
        except av.EOFError:
            return []
        except av.FFmpegError as error:
            if isinstance(error, MemoryError):
                raise
            self._complaint = complaint(error)
            return []

    def _picture(self, frame: VideoFrame, target: tuple[int, int]) -> Image.Image:
        self._limits.check_size(frame.width, frame.height)  # a clip may change its size
        mode, layout = ("RGBA", "rgba") if _has_alpha(frame) else ("RGB", "rgb24")
        untold = frame.colorspace == UNSPECIFIED and frame.height > STANDARD_DEFINITION
        matrix = Colorspace.ITU709 if untold else None
        colours = self._reformatter.reformat(frame, format=layout, src_colorspace=matrix, interpolation=EXACT)
        plane = colours.planes[0]
        picture = Image.frombuffer(mode, (frame.width, frame.height), bytes(plane), "raw", mode, plane.line_size, 1)
        aspect = self._aspect
        if self._rotation in TURNS:
            picture = picture.transpose(TURNS[self._rotation])
            aspect = aspect if self._rotation == 180 else 1 / aspect
        picture = fitted(picture, target, aspect)
        return picture.filter(self._tones) if self._tones else picture


def complaint(error: av.FFmpegError) -> str:
    """Why ffmpeg could not go on, in its own words, without the names of files and of its parts."""
    logged = cast("tuple[int, str, str] | None", error.log)  # level, part and words; its stub says otherwise
    told = logged[2].strip().splitlines()[:1] if logged else []
    if "whitelist" in "".join(told):
        return "a kind of file that is not read"
    return told[0] if told else "it is damaged or of another kind"


def _decoder_of(stream: VideoStream) -> Callable[[Packet[VideoStream] | None], list[VideoFrame]]:
    with_alpha = ALPHA_DECODERS.get(stream.codec_context.name)
    if with_alpha is None or stream.metadata.get("alpha_mode") != "1":
        stream.thread_type = "AUTO"
        return stream.decode
    decoder = cast("VideoCodecContext", av.CodecContext.create(with_alpha, "r"))
    decoder.extradata = stream.codec_context.extradata
    return decoder.decode


def _has_alpha(frame: VideoFrame) -> bool:
    return frame.format.has_palette or any(part.is_alpha for part in frame.format.components)


def _progressive(frames: Iterator[VideoFrame]) -> Iterator[VideoFrame]:
    """The same frames; from the first interlaced one on its two half pictures, taken at two moments, become one."""
    graph: av.filter.Graph | None = None
    for frame in frames:
        if graph is None and frame.interlaced_frame and min(frame.width, frame.height) >= WEAVABLE:
            graph = av.filter.Graph()
            source = graph.add_buffer(
                width=frame.width, height=frame.height, format=frame.format, time_base=frame.time_base
            )
            graph.link_nodes(source, graph.add("bwdif", "mode=send_frame:deint=interlaced"), graph.add("buffersink"))
            graph.configure()
        if graph is None:
            yield frame
        else:
            graph.vpush(frame)
            yield from _pulled(graph)
    if graph is not None:
        graph.vpush(None)
        yield from _pulled(graph)


def _pulled(graph: av.filter.Graph) -> Iterator[VideoFrame]:
    with suppress(av.BlockingIOError, av.EOFError):
        while True:
            yield graph.vpull()
