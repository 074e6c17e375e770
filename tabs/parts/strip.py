"""What was made: a strip of posters below the tabs, each with its prompt, to be shown again, used again or deleted."""

from __future__ import annotations

import html
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import quote

import gradio as gr

from serving.jobs import Done, Failed, Interrupted, Queued, Running, Stopped, Stopping
from text2video_zero.events import duration
from text2video_zero.models.catalogue import origin_of

if TYPE_CHECKING:
    from serving.jobs import State
    from serving.line import Entry
    from serving.queue import JobQueue

TITLE = "What was made"
MOST_SHOWN = 24
MOST_LISTED = 240  # jobs that the filter looks through
TELL_WHAT = """element.addEventListener("click", ({ target }) => {
    const button = target.closest("[data-act]");
    if (!button) return;
    trigger("click", { act: button.dataset.act, job: button.closest("[data-job]")?.dataset.job ?? "" });
});
const field = document.querySelector("#strip-filter input");
const told = document.querySelector("#strip-filter [role=status]");
// Shows the cards that have all the words, of which earlier ones are seen only so.
const sift = () => {
    const words = field.value.toLowerCase().split(/\\s+/).filter(Boolean);
    const cards = [...element.querySelectorAll("[data-words]")];
    for (const card of cards) {
        const hides = !words.every((word) => card.dataset.words.includes(word));
        if (card.hidden !== hides) card.hidden = hides;  // each write is news for the observer below
    }
    element.querySelector(".strip")?.classList.toggle("sifted", words.length > 0);
    const found = cards.filter((card) => !card.hidden).length;
    told.textContent = words.length ? `${found} of ${cards.length}` : "";
};
field.addEventListener("input", sift);
// Gradio draws the strip anew by taking away what its HTML does not have: the attributes that are set here, too.
const drawn = { childList: true, subtree: true, attributes: true, attributeFilter: ["hidden", "class"] };
new MutationObserver(sift).observe(element, drawn);
sift();"""
FILTER = f"""<div class="strip-head"><h2>{TITLE}</h2>
<input type="search" placeholder="Filter" aria-label="Show what has these words in its prompt, model or task">
<span role="status"></span></div>"""
SHOW, AGAIN, DELETE, GO_ON, STOP, NEXT = "show", "again", "delete", "go on", "stop", "next"
PAUSE, RESUME, EMPTY = "pause", "resume", "empty"  # of all that waits
UNFINISHED = {GO_ON: "Go on", DELETE: "Discard"}


@dataclass(frozen=True)
class Strip:
    """The strip of one page.

    filter: its head, where words are typed; it stays when the strip is drawn anew.
    """

    queue: JobQueue
    filter: gr.HTML
    made: gr.HTML

    def render(self) -> None:
        """Lay it out where it is called."""
        self.filter.render()
        self.made.render()

    def listed(self, owner: str) -> str:
        """An owner's jobs as HTML, the newest first; blank while there are none."""
        entries = [entry for entry in self.queue.of(owner) if not entry.job.maps_only]
        if not entries:
            return ""
        waiting = self.queue.waiting(owner)
        line = queue_line(len(waiting), paused=self.queue.is_paused(owner))
        shown = "".join(card(entry, is_next=entry in waiting[:1]) for entry in entries[:MOST_SHOWN])
        found = "".join(card(entry, "earlier") for entry in entries[MOST_SHOWN:MOST_LISTED])
        more = len(entries) - MOST_SHOWN
        folder = "" if self.queue.limits else ", or in the folder"
        told = f"<p>{more} earlier ones are found by the filter{folder}.</p>" if more > 0 else ""
        return f'<section class="strip" aria-label="{TITLE}">{line}<ul>{shown}{found}</ul>{told}</section>'


def build_strip(queue: JobQueue) -> Strip:
    """The strip, to be rendered below the tabs."""
    head = gr.HTML(FILTER, render=False, elem_id="strip-filter")
    made = gr.HTML(render=False, elem_id="strip", elem_classes="strip-slot", js_on_load=TELL_WHAT)
    return Strip(queue, head, made)


def queue_line(waiting: int, *, paused: bool) -> str:
    """How many jobs wait, and what can be done with all of them, as HTML; blank where none does."""
    if not waiting:
        return ""
    acts = {RESUME: "Go on"} if paused else {PAUSE: "Pause"}
    buttons = "".join(_button(act, label) for act, label in (acts | {EMPTY: "Empty the queue"}).items())
    told = f"{waiting} {'waits' if waiting == 1 else 'wait'} in the queue{', which is paused' if paused else ''}."
    return f'<div class="queue" role="group" aria-label="The queue"><span>{told}</span>{buttons}</div>'


def _button(act: str, label: str, told: str = "") -> str:
    named = f' aria-label="{label}: {told}"' if told else ""
    return f'<button type="button" data-act="{act}"{named}>{label}</button>'


def card(entry: Entry, kind: str = "", *, is_next: bool = False) -> str:
    """A job as HTML: its poster, what was asked, how it stands, and what can be done with it.

    kind: "earlier" for one that only the filter brings up.  is_next: no other of its owner's begins before it.
    """
    request, prompt = entry.job.request, html.escape(entry.job.request.prompt)
    poster = entry.folder.poster
    picture = f'<img src="gradio_api/file={quote(str(poster.resolve()))}" alt="" loading="lazy">'
    shown = picture if poster.is_file() else f'<span class="no-poster">{request.title}</span>'
    model, _ = origin_of(entry.job.checkpoint)
    told = f"{state_in_words(entry.standing.state)}{html.escape(model)} · {request.title} · {ago(entry.folder.began)}"
    possible = acts_on(entry.standing.state)
    acts = "".join(_button(act, label, prompt) for act, label in possible.items() if not (act == NEXT and is_next))
    words = html.escape(f"{request.prompt} {model} {request.title}".lower())
    return (
        f'<li data-job="{entry.job.id}" data-words="{words}" class="{kind}">'
        f'<button type="button" class="poster" data-act="{SHOW}" aria-label="Show: {prompt}">{shown}</button>'
        f'<p title="{prompt}">{prompt}</p><small>{told}</small><div>{acts}</div></li>'
    )


def acts_on(state: State) -> dict[str, str]:
    """What can be done with a job, and what the buttons say."""
    match state:
        case Queued():
            return {NEXT: "Make next", STOP: "Stop"}
        case Running() | Stopping():
            return {STOP: "Stop"}
        case Interrupted():
            return UNFINISHED
        case _:
            return {AGAIN: "Use again", DELETE: "Delete"}


def state_in_words(state: State) -> str:
    """How a job stands, blank for a finished one."""
    match state:
        case Done():
            return ""
        case Queued():
            return "<b>waits</b> · "
        case Running() | Stopping():
            return "<b>is being made</b> · "
        case Failed():
            return "<b>failed</b> · "
        case Stopped():
            return "<b>stopped</b> · "
        case Interrupted():
            return "<b>not finished</b> · "


def ago(moment: float) -> str:
    """How long ago a moment was, in words; seconds of the epoch."""
    seconds = time.time() - moment
    if seconds < 60:
        return "just now"
    return time.strftime("%d %b %Y", time.localtime(moment)) if seconds > 86400 else f"{duration(seconds)} ago"
