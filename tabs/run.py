"""What happens between a click and a video.

A click makes jobs of the form's values and puts them into the queue, where they belong to a worker; the page only
follows them, and can do so again after a reload. Events pass values by the names of the request's fields and
unprocessed by the widgets: the request checks them itself, so that page, API and command line say the same sentence
about the same mistake.
"""

from __future__ import annotations

import asyncio
import copy
import json
import time
from collections.abc import AsyncIterator, Iterator  # noqa: TC003 - Gradio reads the annotations of its handlers
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import gradio as gr

from tabs.form import IN_TURN, QUIETLY, Update, given, path_typed
from tabs.look import display
from tabs.parts.controls import MOST_OF_EACH, remade
from text2video_zero.errors import UserError
from text2video_zero.job import NO_SETTINGS, build_job, fields_with_defaults
from text2video_zero.requests.fields import BASICS, FILES, SEED_LIMIT

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from serving.jobs import Standing
    from serving.line import Entry
    from tabs.parts.controls import Controls
    from tabs.parts.result import Result
    from tabs.services import Services
    from text2video_zero.job import Job, Settings
    from text2video_zero.requests import FieldSpec, Request

ASK_FIRST_SECONDS = 5 * 60
"""A job that takes longer is begun only after a second click."""

MOST_WINDOWS = 6
"""Windows in which a visitor to a shared page follows jobs of one tab; each holds a place among Gradio's events."""

PLANNED = (
    "model",
    "prompt",
    "clip",
    "clip_path",
    "start_picture",
    "start_strength",
    "frames",
    "fps",
    "size",
    "steps",
    "guidance_scale",
    "cache_interval",
    "guidance_end",
    "movement",
    "motion",
    "motion_to",
    "storyboard",
    "shot_anchors",
    "smooth_background",
)
"""What decides how long a video is and how long it takes; the rest of the form is not asked at each key."""


def followed(entries: Sequence[Entry]) -> dict[str, Any]:
    """What a tab is told to follow from now on."""
    return {"jobs": [entry.job.id for entry in entries], "since": time.monotonic()}


def at_the_field(spec: FieldSpec | None, value: Any) -> dict[str, Any]:
    """What Gradio shows at a field: what is wrong with its value, or nothing.

    spec: None for what is checked later, when it can be told below the buttons alone.
    """
    try:
        if spec is not None:
            spec.checked(value)
    except UserError as error:
        return gr.validate(is_valid=False, message=str(error))
    return gr.validate(is_valid=True, message="")


@dataclass(frozen=True)
class Run:
    """The handlers of one tab.

    maps_only: whether a run ends with the control maps.
    following: visitor and session of a page -> what follows jobs there; whoever comes later takes over.
    """

    request: type[Request]
    services: Services
    controls: Controls
    result: Result
    maps_only: bool = False
    following: dict[tuple[str, str | None], object] = field(default_factory=dict)

    def connect(self, *seen: Any) -> None:
        """Connect the buttons of the tab. seen: events after which a person sees it anew, or more is known for it."""
        controls, maps = self.controls, replace(self, maps_only=True)
        self._connect_start(controls.buttons.run, self.start)
        self._connect_start(controls.buttons.anyway, self.start_anyway)
        if controls.buttons.show_maps is not None:
            self._connect_start(controls.buttons.show_maps, maps.start, maps_only=True)
        states = controls.states
        states.followed.change(
            self.follow,
            [states.followed, self.services.visitor, self.result.video, self.result.settings],
            [*self.result.outputs, controls.buttons.stop, states.jobs, self.services.strip.made],
            preprocess=False,
            trigger_mode="multiple",
            **IN_TURN,
        )
        controls.buttons.stop.click(
            self.stop, [states.jobs, self.services.visitor], [controls.buttons.stop, self.result.status], **QUIETLY
        )
        self._connect_plan(*seen)

    def _connect_start(self, button: gr.Button, start: Any, *, maps_only: bool = False) -> None:
        controls = self.controls
        open_fields = {
            name: spec
            for name, _, spec in self.request.declarations()
            if spec.section == BASICS and spec.kind not in FILES and not (maps_only and spec.required)
        }

        def amiss(**values: Any) -> list[dict[str, Any]]:
            return [at_the_field(open_fields.get(name), value) for name, value in values.items()]

        names = [None if name in controls.files else name for name in controls.inputs]
        kept = f"{json.dumps(controls.kept_as)}, {json.dumps(names)}"
        button.click(
            start,
            inputs_kwargs={
                **controls.inputs_of_page,
                **controls.batch,
                "visitor": self.services.visitor,
                "jobs": controls.states.jobs,
                "brought": controls.states.brought,
            },
            outputs=[controls.states.followed, self.result.status, controls.buttons.question],
            js=f"(...values) => forms.keep({kept}, values)",
            validator=amiss,
            preprocess=False,
            **IN_TURN,
        )

    def _connect_plan(self, *seen: Any) -> None:
        """Below the buttons stands what the form asks for, and how long that takes, once it is known on what.

        A tab that nobody sees has no plan: whatever was once an output, Gradio looks up again at all later news.
        """
        inputs = {name: widget for name, widget in self.controls.inputs_of_page.items() if name in PLANNED}
        gr.on(
            [*seen, *(widget.change for widget in inputs.values() if hasattr(widget, "change"))],
            self.plan,
            inputs_kwargs=inputs,
            outputs=self.controls.buttons.plan,
            preprocess=False,
            trigger_mode="always_last",
            **QUIETLY,
        )

    def job(self, model: str, values: Mapping[str, Any], made: Settings = NO_SETTINGS) -> Job:
        """The job that the values of the page or of a program ask for; raises UserError where they are amiss.

        made: how the video was made that these values are of.
        """
        fields = given(self.request, values)
        for name in fields_with_defaults(self.request.task):
            if fields.get(name, "") is None:  # left out by a program
                del fields[name]
        loras = str(fields.pop("loras", None) or "").splitlines()
        if (typed_path := path_typed(fields.pop("clip_path", ""))) and not fields["clip"]:
            fields["clip"] = typed_path
        self.services.menu.check(model, loras)
        job = build_job(
            self.request.task,
            fields,
            model=model,
            loras=loras,
            settings=made,
            lora_tags=self.services.menu.free,
            maps_only=self.maps_only,
        )
        if not self.maps_only:  # maps alone need no model
            self.services.menu.check_parts(model, job.checkpoint)
        return job

    def batch(self, model: str, values: dict[str, Any], room: int) -> list[Job]:
        """A job for each prompt and each of its seeds, which are drawn or count on; raises UserError.

        room: jobs that the queue takes at most.
        """
        more, each = str(values.pop("more_prompts") or "").splitlines(), values.pop("each")
        brought = values.pop("brought", None)
        if not isinstance(each, int) or not 1 <= each <= MOST_OF_EACH:
            raise UserError(f"Videos of each is {each!r}: give a whole number from 1 to {MOST_OF_EACH}.")
        prompts = [values["prompt"], *(line for line in more if line.strip())]
        if self.maps_only:  # which are those of the clip, whatever is written
            prompts, each = prompts[:1], 1
        if len(prompts) * each > room > 0:  # where there is none at all, the queue says why
            raise UserError(f"These are {len(prompts) * each} videos, and the queue takes {room} now: ask for fewer.")
        seed = values["seed"]
        seeds = [(seed + n) % SEED_LIMIT if isinstance(seed, int) and seed >= 0 else seed for n in range(each)]
        asked = [values | {"prompt": prompt, "seed": seed} for prompt in prompts for seed in seeds]
        return [self.job(model, one, remade(brought, one)) for one in asked]

    def question(self, jobs: Sequence[Job]) -> str:
        """What is asked before jobs that take very long are begun, as HTML; blank where they do not."""
        seconds = sum(self.services.seconds(job) or 0 for job in jobs)
        return display.question(seconds) if seconds > ASK_FIRST_SECONDS else ""

    def start(
        self,
        model: str,
        visitor: str,
        jobs: list[str],
        request: gr.Request | None = None,
        *,
        sure: bool = False,
        **values: Any,
    ) -> Iterator[Update]:
        """Put what the form asks for into the queue, or tell what is amiss; ask first where it takes very long."""
        question, owner = self.controls.buttons.question, self.services.owner(visitor)
        try:
            asked = self.batch(model, values, self.services.room(visitor, request))
            if not sure and not self.maps_only and (first := self.question(asked)):
                yield {question: first}
                return
            entries = self._submitted(asked, visitor, request)
        except UserError as error:
            yield {self.result.status: display.line(str(error), "failed"), question: ""}
            raise gr.Error(display.toast(str(error)), print_exception=False) from error
        before = [earlier for earlier in self.found(jobs, owner) if not earlier.standing.is_over]
        yield {self.controls.states.followed: followed([*before, *entries]), question: ""}

    def _submitted(self, asked: Sequence[Job], visitor: str, request: gr.Request | None) -> list[Entry]:
        """Put jobs into the queue; where it takes some of them alone, the person is told. Raises UserError for none."""
        entries: list[Entry] = []
        for job in asked:
            try:
                entries.append(self.services.submitted(job, visitor, request))
            except UserError as error:
                if not entries:
                    raise
                told = f"The queue took {len(entries)} of these {len(asked)} videos. {error}"
                gr.Warning(display.toast(told), duration=None)
                break
        return entries

    def start_anyway(
        self, model: str, visitor: str, jobs: list[str], request: gr.Request | None = None, **values: Any
    ) -> Iterator[Update]:
        """The same for somebody who knows how long it takes."""
        yield from self.start(model, visitor, jobs, request, sure=True, **values)

    def plan(self, model: str, *, prompt: str | None = None, **values: Any) -> str:
        """What the form asks for, and how long that takes here, as HTML; blank where something is missing or amiss."""
        try:
            job = self.job(model, values | {"prompt": prompt or "?"})
        except UserError:
            return ""
        return display.plan(job.request, self.services.seconds(job), self.services.tokens(model, prompt or ""))

    async def follow(
        self, followed: Any, visitor: str, video: Any, settings: Any, request: gr.Request
    ) -> AsyncIterator[Update]:
        """Fill the page with how jobs stand, one after the other, until the last is over or somebody else follows.

        followed: as `start` hands it on.  video, settings: what is shown now; an example's video has no settings.
        """
        owner, token = self.services.owner(visitor), object()
        entries = self.found(followed["jobs"] if followed else [], owner)
        if not entries:
            yield {self.controls.states.jobs: []}  # a generator without a word would empty the page
            return
        self._take_over(owner, request.session_hash, token)
        listening = self.services.listening(request)
        strip, shown, listed = self.services.strip, Update(), None
        had_video, had_files = video is not None, settings is not None

        def wanted() -> bool:
            return listening() and self.following.get((owner, request.session_hash)) is token

        try:
            async for entry, standing, place, picture in self._news(entries, wanted):
                if not wanted():
                    return
                page = self.result.showing(
                    entry.job, standing, place, picture, had_video=had_video, had_files=had_files
                )
                had_video |= standing.stored is not None
                had_files |= standing.stored is not None and standing.is_over
                page[self.controls.states.jobs] = [entry.job.id for entry in entries]
                page[self.controls.buttons.stop] = gr.update(interactive=not standing.is_over)
                if (kind := (entry, type(standing.state))) != listed:
                    page[strip.made], listed = strip.listed(owner), kind
                changed = {
                    widget: news for widget, news in page.items() if widget not in shown or shown[widget] != news
                }
                shown |= page
                if changed:
                    # Copies, for Gradio takes the values out of what it is given.
                    yield {widget: copy.copy(news) for widget, news in changed.items()}
        finally:
            if self.following.get((owner, request.session_hash)) is token:
                del self.following[owner, request.session_hash]

    def _take_over(self, owner: str, session: str | None, token: object) -> None:
        """Follow in a session from now on; the eldest of too many windows of one visitor follows no longer."""
        self.following.pop((owner, session), None)
        self.following[owner, session] = token
        windows = [window for window in self.following if window[0] == owner]
        for window in windows[:-MOST_WINDOWS] if self.services.shared else ():
            del self.following[window]

    async def _news(
        self, entries: Sequence[Entry], wanted: Callable[[], bool]
    ) -> AsyncIterator[tuple[Entry, Standing, int | None, str]]:
        """How jobs stand, one job after the other as they are made: each with its place, and its preview as HTML."""
        queue, left = self.services.queue, list(entries)
        with queue.awaited(entries):
            while left and wanted():
                entry, picture, drawn, is_over = queue.foremost(left), display.busy(), None, False
                news = queue.watched(entry, lambda entry=entry: wanted() and queue.foremost(left) is entry)
                async for standing, place in news:
                    if standing.preview is not None and standing.preview is not drawn and standing.stored is None:
                        drawn = standing.preview
                        picture = await asyncio.to_thread(display.preview, drawn, entry.job.request.fps)
                    yield entry, standing, place, picture
                    is_over = standing.is_over
                if is_over:
                    left.remove(entry)

    def stop(self, jobs: list[str], visitor: str) -> Update:
        """Stop what the tab shows, within a step; the page follows and sees it."""
        unfinished = [entry for entry in self.found(jobs, self.services.owner(visitor)) if not entry.standing.is_over]
        page: Update = {self.controls.buttons.stop: gr.update(interactive=False)}
        if unfinished:
            self.services.queue.stop(self.services.queue.foremost(unfinished))
            page[self.result.status] = display.stopping()
        return page

    def found(self, jobs: Any, owner: str) -> list[Entry]:
        """Jobs of this task by their ids, which come from a browser."""
        known = jobs if isinstance(jobs, list) else []
        entries = [self.services.queue.find(job_id, owner) for job_id in dict.fromkeys(map(str, known))]
        return [entry for entry in entries if entry and entry.job.request.task == self.request.task]
