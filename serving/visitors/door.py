"""Who comes in: tries at a password in their turn, and no more at once from one address than others bear."""

from __future__ import annotations

import asyncio
import re
import time
from collections import OrderedDict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from urllib.parse import parse_qs

from starlette.responses import JSONResponse, PlainTextResponse

from serving.visitors.addresses import network_of

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from serving.visitors.limits import Limits
    from serving.visitors.listeners import Listeners

JOINING = re.compile(r"/queue/join$|/call/(v2/)?[^/]+$")
"""How paths end to which events are posted that wait in Gradio's queue."""


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
