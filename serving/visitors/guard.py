"""What is refused before Gradio sees it: routes of its own that this app has no use for, and other people's names."""

from __future__ import annotations

import ipaddress
import re
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from starlette.responses import PlainTextResponse

if TYPE_CHECKING:
    from collections.abc import Collection

    from starlette.types import ASGIApp, Message, Receive, Scope, Send

UNUSED = re.compile(
    r"(/gradio_api)?/(process_recording|proxy=|file[=/]https?:|component_server|custom_component|(undo-)?vibe-"
    r"|deep_link|dev/|monitoring|runs|run-history|profiling)",
    re.IGNORECASE,
)
"""Paths that begin like this answer nothing.

With an .m3u8 or DASH file `process_recording` returned the pictures of any video of this machine whose path was known.
A `file` that is an address of the net is fetched and handed on, however large.
"""


MEDIA = re.compile(rb"audio/|video/|image/(?!svg)")
"""Kinds of files that have no scripts in them."""


class Guard:
    """ASGI middleware; a request that passes is Gradio's.

    hosts: names, addresses and networks ("10.0.0.0/8") by which the page may be called; any, where there are none.
    """

    def __init__(self, app: ASGIApp, hosts: Collection[str] = ()) -> None:
        self._app, self._hosts = app, {host.lower() for host in hosts}
        self._networks = [ipaddress.ip_network(host) for host in self._hosts if "/" in host]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer what is refused, hand on the rest."""
        refusal = self._refusal(scope) if scope["type"] in {"http", "websocket"} else None
        if refusal is None:
            await self._app(scope, receive, _without_scripts(send) if "/file=" in scope.get("path", "") else send)
        else:
            await refusal(scope, receive, send)

    def _refusal(self, scope: Scope) -> PlainTextResponse | None:
        if UNUSED.match(scope["path"].removeprefix(scope.get("root_path", ""))):
            return PlainTextResponse("There is nothing here.", 404)
        called = _called(scope)
        if self._hosts and called not in self._hosts and not self._is_known_address(called):
            told = f"This page is not served as {called[:80]!r}. If that is its name, start it with --allow-host."
            return PlainTextResponse(told, 403)
        return None

    def _is_known_address(self, called: str) -> bool:
        try:
            return any(ipaddress.ip_address(called) in network for network in self._networks)
        except ValueError:
            return False


def _without_scripts(send: Send) -> Send:
    """Let a file that is shown run no scripts: a clip that somebody brings is kept by its name, and may be a page.

    Gradio hands out what is in the folder of videos to be opened in the browser, whatever it is.
    """

    async def sent(message: Message) -> None:
        if message["type"] == "http.response.start":
            kind = dict(message["headers"]).get(b"content-type", b"")
            if not MEDIA.match(kind):
                message["headers"] = [*message["headers"], (b"content-security-policy", b"sandbox")]
        await send(message)

    return sent


def _called(scope: Scope) -> str:
    """The name in the Host header, without a port and in small letters."""
    host = dict(scope["headers"]).get(b"host", b"").decode("latin-1")
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return host
