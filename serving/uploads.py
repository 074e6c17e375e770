"""What visitors of a shared page upload, which goes with their session.

Gradio keeps uploads by their content, for a day, and does not know whose they are. A session is the page that names
an upload in what it asks; once no session is left that did, the file goes. Jobs have copies of their own.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from serving.presence import Presence

LOG = logging.getLogger(__name__)

GRACE_SECONDS = 60.0
"""How long a session that went may stay away: a phone changes its network, a page is loaded again."""

LARGEST_BODY = 4_000_000
"""Bytes of a question that is looked at; what a page asks has a hundredth of it."""

_BEAT = "/heartbeat/"
_ASKING = ("/queue/join", "/run/predict")


class Uploads:
    """ASGI middleware: notes which session names which upload, and removes it when the last of them has gone.

    presence: learns which sessions are there.
    kept: names of files that stay, whoever named them: an example's clip lies where the same clip is uploaded to.
    """

    def __init__(self, app: ASGIApp, presence: Presence, kept: Collection[str] = ()) -> None:
        self._app, self._presence, self._kept = app, presence, frozenset(kept)
        self._named: defaultdict[str, set[str]] = defaultdict(set)  # by session
        self._leaving: set[asyncio.Task[None]] = set()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Hand a request on, and look at it."""
        path = scope["path"].rstrip("/") if scope["type"] == "http" else ""
        if _BEAT in path:
            await self._while_there(path.rpartition("/")[2], scope, receive, send)
        elif path.endswith(_ASKING) and scope["method"] == "POST":
            body, receive = await _read(receive)
            self._note(body, scope)
            await self._app(scope, receive, send)
        else:
            await self._app(scope, receive, send)

    async def _while_there(self, session: str, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            with self._presence.beating(session):
                await self._app(scope, receive, send)
        finally:
            leaving = asyncio.create_task(self._left(session))
            self._leaving.add(leaving)
            leaving.add_done_callback(self._leaving.discard)

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
