"""What the page says of itself before it runs: to a chat that previews its link, and to whoever must log in first."""

from __future__ import annotations

import gzip
import html
import re
from typing import TYPE_CHECKING

from starlette.datastructures import Headers, MutableHeaders

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

GRADIO_S = re.compile(rb'\s*<meta\s+(?:property="og:|name="twitter:)[^>]*>')
"""What Gradio's template says of itself, in front of what it says of the app."""

FAST = 3  # of gzip's nine levels


class Head:
    """ASGI middleware that writes into the page's head what Gradio has no option for, and sends the page compressed.

    All that the tabs say is in it, which is a megabyte otherwise.

    title, about: of the page, for previews of links.  style: CSS; before the login Gradio sends none of an app's own.
    """

    def __init__(self, app: ASGIApp, title: str, about: str, style: str) -> None:
        self._app = app
        told = {"og:type": "website", "og:title": title, "og:description": about}
        metas = "".join(f'<meta property="{name}" content="{html.escape(text)}">' for name, text in told.items())
        self._added = f"{metas}<style>{style}</style>".encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Hand everything on, the page with another head."""
        if scope["type"] != "http" or scope["path"] not in {"/", ""}:
            await self._app(scope, receive, send)
            return
        zips = "gzip" in Headers(scope=scope).get("accept-encoding", "")
        held: list[Message] = []  # the start, until the length of what follows it is known

        async def rewrite(message: Message) -> None:
            if message["type"] == "http.response.start" and _is_page(message):
                held.append(message)
                return
            if held:
                page, start = self.written(message.get("body", b"")), held.pop()
                headers = MutableHeaders(scope=start)
                headers.add_vary_header("accept-encoding")
                if zips:
                    page = gzip.compress(page, FAST)
                    headers["content-encoding"] = "gzip"
                headers["content-length"] = str(len(page))
                message = {**message, "body": page}
                await send(start)
            await send(message)

        await self._app(scope, receive, rewrite)

    def written(self, page: bytes) -> bytes:
        """The page with our head; a page without one stays as it is."""
        head, end, rest = page.partition(b"</head>")
        start, script, values = head.partition(b"<script")  # behind it lie values of the app's, prompts say
        return GRADIO_S.sub(b"", start) + (self._added if end else b"") + script + values + end + rest


def _is_page(start: Message) -> bool:
    """Whether an answer is HTML as it was written, and comes in one piece, as its length tells."""
    headers = MutableHeaders(scope=start)
    return (
        headers.get("content-type", "").startswith("text/html")
        and "content-length" in headers
        and "content-encoding" not in headers
    )
