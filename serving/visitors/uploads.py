"""What visitors of a shared page upload, which goes with their session.

Gradio keeps uploads by their content, for a day, and does not know whose they are. A session is the page that names
an upload in what it asks; once no session is left that did, the file goes. Jobs have copies of their own. What no open
page names, a program's clip or an upload that was cut off, goes after an hour.
"""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator

    from gradio.routes import App
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from serving.visitors.presence import Presence

LOG = logging.getLogger(__name__)

GRACE_SECONDS = 60.0
"""How long a session that went may stay away: a phone changes its network, a page is loaded again."""

UNNAMED_SECONDS = 3600.0
"""How long an upload stays that no open page has named: whoever brings one, a program too, asks soon after."""

SWEEP_SECONDS = 360.0  # between two looks for such uploads

LARGEST_BODY = 4_000_000
"""Bytes of a question that is looked at; what a page asks has a hundredth of it."""

_BEAT = "/heartbeat/"
_ASKING = ("/queue/join", "/run/predict")
_CUT_OFF = "tmp????????"  # how Gradio calls what is still coming, and leaves it where the connection breaks


class Uploads:
    """ASGI middleware: notes which session names which upload, and removes it when the last of them has gone.

    presence: learns which sessions are there.
    kept: names of files that stay, whoever named them: an example's clip lies where the same clip is uploaded to.
    """

    def __init__(self, app: ASGIApp, presence: Presence, kept: Collection[str] = ()) -> None:
        self._app, self._presence, self._kept = app, presence, frozenset(kept)
        self._named: defaultdict[str, set[str]] = defaultdict(set)  # by session
        self._leaving: dict[asyncio.Task[None], str] = {}  # the sessions that may be back in a moment
        self._sweeping: asyncio.Task[None] | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Hand a request on, and look at it."""
        path = scope["path"].rstrip("/") if scope["type"] == "http" else ""
        if _BEAT in path:
            await self._while_there(path.rpartition("/")[2], scope, receive, send)
        elif path.endswith(_ASKING) and scope["method"] == "POST":
            body, receive = await _read(receive)
            self._note(body, scope)
            await self._app(scope, receive, send)
        elif path.endswith("/upload") and scope["method"] == "POST":
            if self._sweeping is None or self._sweeping.done():
                self._sweeping = asyncio.create_task(self._sweep(scope["app"]))
            await self._app(scope, receive, send)
        else:
            await self._app(scope, receive, send)

    async def _while_there(self, session: str, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            with self._presence.beating(session):
                await self._app(scope, receive, send)
        finally:
            leaving = asyncio.create_task(self._left(session))
            self._leaving[leaving] = session
            leaving.add_done_callback(self._leaving.pop)

    async def _left(self, session: str) -> None:
        """Remove what only a session named, unless it is back within a moment."""
        await asyncio.sleep(GRACE_SECONDS)
        if self._presence.is_there(session):
            return
        named = self._named.pop(session, set())
        for name in named.difference(*self._named.values()):
            try:
                await asyncio.to_thread(Path(name).unlink, missing_ok=True)
            except OSError as error:
                LOG.warning("An upload stays for a day: %s", error)

    async def _sweep(self, app: App) -> None:
        """Remove what no open page has named for long, until there is no such upload any more."""
        stay = [Path()]
        while stay:
            await asyncio.sleep(SWEEP_SECONDS)
            here = {name for name in self._named if self._presence.is_there(name) or name in self._leaving.values()}
            named = set[str]().union(*(self._named[session] for session in here))
            uploads = [Path(name) for name in app.get_blocks().upload_file_set - named]
            uploads = [path for path in uploads if path.name not in self._kept]
            stay = await asyncio.to_thread(_without_old, uploads, Path(app.uploaded_file_dir))
            for session in self._named.keys() - here:
                if not self._named[session].intersection(map(str, stay)):
                    del self._named[session]  # it was never there

    def _note(self, body: bytes, scope: Scope) -> None:
        try:
            asked: dict[str, Any] = json.loads(body)
            session = str(asked["session_hash"])
            uploaded = scope["app"].get_blocks().upload_file_set
        except (ValueError, KeyError, TypeError, AttributeError):
            return  # Gradio's to refuse
        named = {name for name in _paths(asked.get("data")) if name in uploaded and Path(name).name not in self._kept}
        if named:
            self._named[session] |= named


async def _read(receive: Receive) -> tuple[bytes, Receive]:
    """The body of a request as far as it is looked at, and what its reader receives instead."""
    messages: list[Message] = []
    body, more = b"", True
    while more and len(body) <= LARGEST_BODY:
        messages.append(await receive())
        body += messages[-1].get("body", b"")
        more = messages[-1].get("more_body", False)
    left = iter(messages)

    async def again() -> Message:
        return next(left, None) or await receive()

    return body if len(body) <= LARGEST_BODY else b"", again


def _without_old(uploads: Iterable[Path], folder: Path) -> list[Path]:
    """Remove the uploads that have been here for as long as they were to stay; returns those that are still young.

    folder: where those are that were cut off.
    """
    young: list[Path] = []
    for path in (*uploads, *folder.glob(_CUT_OFF)):
        try:
            if time.time() - path.stat().st_ctime < UNNAMED_SECONDS:
                young.append(path)
            else:
                path.unlink()
        except FileNotFoundError:  # it went with its session
            pass
        except OSError as error:
            LOG.warning("An upload stays for a day: %s", error)
    return young


def _paths(value: object) -> Iterator[str]:
    """The paths of all files in the data of an event."""
    if isinstance(value, dict):
        if isinstance(path := value.get("path"), str):
            yield path
        for part in value.values():
            yield from _paths(part)
    elif isinstance(value, list):
        for part in value:
            yield from _paths(part)
