"""What one visitor may take of a page that others use too: jobs, their size and time, tries at a password."""

from __future__ import annotations

import asyncio
import dataclasses
import ipaddress
import re
import tempfile
import threading
import time
from collections import Counter, OrderedDict, deque
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Self
from urllib.parse import parse_qs

from starlette.responses import JSONResponse, PlainTextResponse

from serving.estimates import pixels
from text2video_zero.errors import UserError
from text2video_zero.events import Progress
from text2video_zero.generators import mapped
from text2video_zero.media.clips import frames_at, probing
from text2video_zero.requests import ClipRequest

if TYPE_CHECKING:
    from collections.abc import Generator, Sequence

    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from text2video_zero.job import Job

FOLDERS = re.compile(r"(?<![\w.:/])/(?:[^\s/:,;()'\"]+/)*(?=[^\s/:,;()'\"])")
"""The folders of an absolute path; none of an address on the net, whose slashes follow a colon or a name."""

JOINING = re.compile(r"/queue/join$|/call/(v2/)?[^/]+$")
"""How paths end to which events are posted that wait in Gradio's queue."""

GRACE_SECONDS = 10
"""How long somebody may be between asking and listening, or between two connections, and still be listening."""


@dataclass(frozen=True)
class Limits:
    """Limits of a shared page; a page of one's own has none. Each is a whole number from 1 on.

    waiting: jobs of one visitor in the queue.  minute: jobs that a visitor asks for within a minute.
    neighbours: visitors who may share an address, a school's say: it has the limits of so many together.
    events: of one address that wait at once for their turn on the page: looks at clips, say.
    clip: seconds of a clip that are used.  decoded: frames of the clip that lie in them.
    frames: of a video, that are drawn.  played: frames of a video, those in between counted.
    pixels: of a frame.  steps: of denoising.  seconds: that a job computes.
    """

    waiting: int = 12
    minute: int = 24
    neighbours: int = 3
    events: int = 16
    clip: int = 60
    decoded: int = 60 * 120
    frames: int = 128
    played: int = 960
    pixels: int = 1024 * 1024
    steps: int = 100
    seconds: int = 30 * 60

    @classmethod
    def read(cls, given: Sequence[str]) -> Self:
        """The usual limits but for those that are given as NAME=NUMBER; raises UserError."""
        names = {one.name for one in dataclasses.fields(cls)}
        limits = cls()
        for pair in given:
            name, _, number = pair.partition("=")
            if name not in names or not number.isdecimal() or int(number) < 1:
                raise UserError(
                    f"The limit {pair!r} is none: give one of {', '.join(sorted(names))} with a whole number, "
                    "for example --limit frames=64."
                )
            limits = dataclasses.replace(limits, **{name: int(number)})
        return limits

    def check(self, job: Job) -> None:
        """Raise UserError where a job asks for more than a visitor may have."""
        request = job.request
        if request.frames > self.frames:
            raise UserError(f"Frames is {request.frames}, but a shared page draws at most {self.frames}: ask for less.")
        if request.frames_played > self.played:
            raise UserError(
                f"Play at {request.play_fps} makes {request.frames_played} frames, but a shared page writes at most "
                f"{self.played}: play slower, or draw fewer."
            )
        if pixels(job) > self.pixels:
            size, side = request.size or "the model's own", int(self.pixels**0.5)
            raise UserError(f"Size is {size}, but a shared page draws at most {side}x{side} or as many pixels.")
        if request.steps > self.steps:
            raise UserError(f"Steps is {request.steps}, but a shared page takes at most {self.steps}: ask for fewer.")

    def checking_clip(self, job: Job) -> Generator[Progress]:
        """Look how long the part of a clip is that a job uses, as `checking_part` does."""
        if isinstance(request := job.request, ClipRequest):
            part = self.checking_part(Path(request.clip), request.first_frame, request.frames, request.fps)
            yield from mapped(part, lambda _: Progress("Opening the clip", 0, 1))

    def checking_part(self, path: Path, first_frame: int, frames: int, fps: float) -> Generator[None]:
        """Look how long a part of a clip is, before its frames are decoded, which all are that lie in it.

        first_frame, frames: the part, at `fps` frames per second.  Pictures without times are never more than the
        frames of the video, which `check` counts.
        Yields now and then. Raises UserError where the part is longer than a visitor may have it, and for a clip that
        cannot be read.
        """
        info = yield from probing(path)
        seconds = 0 if info.timeless else min(frames, frames_at(info, fps) - first_frame) / fps
        decoded = round(seconds * info.fps)
        if seconds > self.clip:
            amiss = f"lasts {seconds:.3g} seconds, but a shared page reads at most {self.clip}"
        elif decoded > self.decoded:
            amiss = f"has {decoded} frames, but a shared page decodes at most {self.decoded}"
        else:
            return
        raise UserError(
            f"The part of the clip that is used {amiss}: ask for fewer Frames or more Frames per second, or cut the "
            "clip."
        )

    def check_time(self, seconds: float) -> None:
        """Raise UserError where a job has computed for longer than a visitor may have it."""
        if seconds > self.seconds:
            told = f"This took longer than the {self.seconds} seconds that a shared page gives to a video"
            raise UserError(f"{told}: ask for fewer frames or steps, or a smaller size.")


class Asked:
    """How many jobs each visitor asked for within the last minute."""

    def __init__(self) -> None:
        self._moments: dict[str, deque[float]] = {}

    def within_a_minute(self, who: str) -> int:
        """Jobs that somebody, an owner or an address, asked for within the last minute."""
        moments, now = self._moments.get(who, deque()), time.monotonic()
        while moments and now - moments[0] > 60:
            moments.popleft()
        return len(moments)

    def note(self, who: str) -> None:
        """Somebody asks for a job now. Who asked for none of late is forgotten."""
        for known in list(self._moments):
            if not self.within_a_minute(known):
                del self._moments[known]
        self._moments.setdefault(who, deque()).append(time.monotonic())


class Listeners:
    """Which sessions of a page have a connection open by which news of their jobs reaches them."""

    def __init__(self) -> None:
        self._open: Counter[str] = Counter()
        self._left: dict[str, float] = {}
        self._lock = threading.Lock()

    def hears(self, session: str, since: float) -> bool:
        """Whether a session listens, or did a moment ago.

        since: when it asked, in seconds of the monotonic clock; from then on it has a moment to begin.
        """
        with self._lock:
            if self._open[session]:
                return True
            del self._open[session]
            return time.monotonic() - max(since, self._left.get(session, 0.0)) < GRACE_SECONDS

    @contextmanager
    def listening(self, session: str) -> Generator[None]:
        """While it is open, a session listens."""
        with self._lock:
            self._open[session] += 1
        try:
            yield
        finally:
            now = time.monotonic()
            with self._lock:
                self._open[session] -= 1
                self._left = {who: left for who, left in self._left.items() if now - left < GRACE_SECONDS}
                self._left[session] = now


@dataclass
class Tries:
    """Tries at a password from one address: how many were wrong, how many wait, and the one whose turn it is."""

    wrong: int = 0
    waiting: int = 0
    turn: asyncio.Lock = field(default_factory=asyncio.Lock)
    latest: float = field(default_factory=time.monotonic)


class Door:
    """ASGI middleware: keeps who listens in view, and lets wrong passwords wait, each longer than the one before.

    limits: of a visitor, None where there are none; they hold for what waits in Gradio's queue, too, which takes what
    comes from whomever until it is full.

    Tries from one address wait for one another; other addresses do not notice, and who is in stays in. A right
    password does not take the wait away, or a visitor's own would make room for guesses at the owner's.
    """

    FREE, FIRST_PAUSE, LONGEST_PAUSE = 3, 1.0, 8.0  # wrong passwords without a pause; seconds
    AT_ONCE = 5  # tries of an address that wait
    FORGET_SECONDS, MOST_KNOWN = 15 * 60, 10_000

    def __init__(self, app: ASGIApp, listeners: Listeners, limits: Limits | None = None) -> None:
        self._app, self._listeners, self._limits = app, listeners, limits
        self._tries: OrderedDict[str, Tries] = OrderedDict()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Hand a request on, at once or in its turn."""
        posted = scope["path"].rstrip("/") if scope["type"] == "http" and scope["method"] == "POST" else ""
        if posted.endswith("/login"):
            await self._login(scope, receive, send)
        elif self._limits and JOINING.search(posted) and _waiting_events(scope) >= self._limits.events:
            told = "Too much from your address waits for its turn already: try again when some of it is there."
            await JSONResponse({"detail": told}, 429)(scope, receive, send)
        elif session := _listening_session(scope):
            with self._listeners.listening(session):
                await self._app(scope, receive, send)
        else:
            await self._app(scope, receive, send)

    async def _login(self, scope: Scope, receive: Receive, send: Send) -> None:
        tries = self._tries_of(_network(scope))
        if tries.waiting >= self.AT_ONCE:
            told = "Too many tries at a password from your address at once: try again in a minute."
            await PlainTextResponse(told, 429)(scope, receive, send)
            return

        async def seen(message: Message) -> None:
            if message["type"] == "http.response.start" and message["status"] == 400:
                tries.wrong, tries.latest = tries.wrong + 1, time.monotonic()
            await send(message)

        tries.waiting += 1
        try:
            async with tries.turn:
                await asyncio.sleep(self.pause(tries.wrong))
                await self._app(scope, receive, seen)
        finally:
            tries.waiting -= 1

    def pause(self, wrong: int) -> float:
        """Seconds before the next try is looked at, after so many wrong ones."""
        return (
            min(self.FIRST_PAUSE * 2.0 ** min(wrong - self.FREE, 60), self.LONGEST_PAUSE) if wrong >= self.FREE else 0
        )

    def _tries_of(self, address: str) -> Tries:
        """An address's tries; those that nobody made of late, or too many to know, are forgotten."""
        now = time.monotonic()
        for known, tries in list(self._tries.items()):
            if tries.waiting or (now - tries.latest < self.FORGET_SECONDS and len(self._tries) < self.MOST_KNOWN):
                break
            del self._tries[known]
        tries = self._tries.setdefault(address, Tries())
        self._tries.move_to_end(address)
        return tries


def without_folders(sentence: str, known: Sequence[Path] = ()) -> str:
    """A sentence with the names of files alone where it has their paths.

    known: folders that may have blanks in their names, at which a path seems to end otherwise.
    """
    for folder in (*known, Path(tempfile.gettempdir()), Path.home(), Path.cwd()):
        if folder != Path("/"):  # as of a container's user: there is nothing to leave out, and addresses have a //
            sentence = sentence.replace(f"{folder}/", "/")
    return FOLDERS.sub("", sentence)


def network_of(address: str) -> str:
    """What stands for one household: an IPv4 address, or the /64 of an IPv6 one, of which each has many."""
    try:
        known = ipaddress.ip_address(address)
    except ValueError:
        return address
    if known.version == 4:
        return str(known)
    mapped = known.ipv4_mapped
    return str(mapped or ipaddress.ip_network((known, 64), strict=False))


def _network(scope: Scope) -> str:
    return network_of((scope["client"] or ("",))[0])


def _waiting_events(scope: Scope) -> int:
    """How many events of a request's address wait in Gradio's queue, which it keeps to itself."""
    network, queues = _network(scope), scope["app"].get_blocks()._queue.event_queue_per_concurrency_id  # noqa: SLF001
    waiting = [event.request.client for queue in list(queues.values()) for event in list(queue.queue)]
    return sum(client is not None and network_of(client.host) == network for client in waiting)


def _listening_session(scope: Scope) -> str:
    """The session that a request listens for; blank where it is no such request."""
    if scope["type"] != "http" or scope["method"] != "GET":
        return ""
    path: str = scope["path"]  # a proxy may have put something before it
    if path.endswith("/queue/data"):
        return parse_qs(scope["query_string"].decode("latin-1")).get("session_hash", [""])[0]
    if "/gradio_api/call/" not in path:
        return ""
    event_id = path.rsplit("/", 1)[1]  # whose session is the caller's own, or goes by the same name
    event = scope["app"].get_blocks()._queue.event_ids_to_events.get(event_id)  # noqa: SLF001
    return (event and event.session_hash) or event_id
