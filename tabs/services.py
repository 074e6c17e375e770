"""What the tabs need from the rest of the program and from the page that they stand on."""

from __future__ import annotations

import hashlib
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from serving.store import FORMS
from serving.visitors.addresses import network_of
from text2video_zero.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Callable

    import gradio as gr

    from serving.line import Entry
    from serving.menu import ModelMenu
    from serving.queue import JobQueue
    from tabs.parts.strip import Strip
    from text2video_zero.job import Job
    from text2video_zero.prompts.counting import TokenCount


@dataclass(frozen=True)
class Services:
    """What the tabs need.

    shared: whether people see the page who do not know one another: each finds her own jobs alone.
    page: the whole page.  visitor: an unguessable name that the browser keeps.  strip: what was made.
    head: of the page, which changes when it is known what jobs run on.
    """

    queue: JobQueue
    menu: ModelMenu
    shared: bool
    page: gr.Blocks
    visitor: gr.BrowserState
    strip: Strip
    head: gr.HTML

    def owner(self, visitor: str | None) -> str:
        """Whose jobs a visitor sees; blank where one person alone sees the page."""
        return hashlib.sha256(str(visitor).encode()).hexdigest()[:32] if self.shared else ""

    def address(self, request: gr.Request | None) -> str:
        """Where a request comes from; blank where one person alone sees the page."""
        return network_of(request.client.host) if self.shared and request and request.client else ""

    def arrived(self, visitor: str | None, request: gr.Request | None) -> None:
        """A visitor is at the page that a request comes from: her jobs go on while it is open, whatever it shows."""
        if visitor and request and request.session_hash:
            self.queue.presence.note(request.session_hash, self.owner(visitor))

    def room(self, visitor: str | None, request: gr.Request | None) -> int:
        """How many jobs the queue takes now of a visitor."""
        return self.queue.room(self.owner(visitor), self.address(request))

    def submitted(
        self,
        job: Job,
        visitor: str | None,
        request: gr.Request | None,
        forms: tuple[str, ...] = tuple(FORMS),
    ) -> Entry:
        """Put a visitor's job into the queue; raises UserError where there is no room, or no visitor yet."""
        if self.shared and not visitor:
            raise UserError("The page is not ready yet: load it again.")
        self.arrived(visitor, request)
        try:
            return self.queue.submit(job, self.owner(visitor), forms, address=self.address(request))
        except UserError as error:
            raise UserError(self.queue.told(str(error))) from error

    def listening(self, request: gr.Request) -> Callable[[], bool]:
        """Whether whoever sent a request still hears what comes of it; a page of one's own need not be listened to."""
        session, since = request.session_hash or "", time.monotonic()
        return lambda: not self.shared or self.queue.listeners.hears(session, since)

    def seconds(self, job: Job) -> float | None:
        """How long a job will take here; None where nothing is known to judge by."""
        return self.queue.pace.estimate(job, self.queue.runner.kind)

    def tokens(self, model: str, prompt: str) -> TokenCount | None:
        """How long a prompt is for a model; None where nobody here can tell, or nobody yet."""
        if not self.queue.runner.kind:  # transformers is being imported, which two threads cannot do at once
            return None
        try:
            return self.menu.token_count(model, prompt)
        except UserError:  # a prompt that cannot be read: the run tells it
            return None
