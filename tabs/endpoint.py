"""A task as an endpoint for programs: the same run as the button's, with typed parameters."""

from __future__ import annotations

import functools
import inspect
from collections.abc import AsyncGenerator  # noqa: TC003 - Gradio reads the annotations of its handlers
from contextlib import aclosing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import gradio as gr

from serving.jobs import Failed, Queued, Running, Stopped, explained
from serving.store import PLAYABLE
from tabs.form import optional
from text2video_zero.job import fields_with_defaults
from text2video_zero.requests import REQUESTS, Kind
from text2video_zero.requests.video import FULL_QUALITY

if TYPE_CHECKING:
    from collections.abc import Callable

    from serving.jobs import State
    from tabs.run import Run
    from text2video_zero.requests import Request


def may_leave_out_what_has_defaults(answer: Callable[..., Any]) -> Callable[..., Any]:
    """Name pictures, and fields whose default depends on the model, in a handler's signature, where Gradio looks.

    A parameter of an endpoint may be left out if its widget has a value, or if the signature has None for it.
    """
    signature = inspect.signature(answer)
    pictures = (
        name for task in REQUESTS.values() for name, _, spec in task.declarations() if spec.kind is Kind.PICTURE
    )
    names = dict.fromkeys([*(name for task in REQUESTS for name in fields_with_defaults(task)), *pictures])
    *first, others = signature.parameters.values()
    added = [inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None) for name in names]
    answer.__signature__ = signature.replace(parameters=[*first, *added, others])
    return answer


def named(answer: Callable[..., AsyncGenerator[Any]], name: str) -> Callable[..., AsyncGenerator[Any]]:
    """A handler under another name, which an MCP server gives its tool, and with the same signature."""

    @functools.wraps(answer)
    async def answered(*values: Any, **fields: Any) -> AsyncGenerator[Any]:
        async with aclosing(answer(*values, **fields)) as answers:
            async for one in answers:
                yield one

    # Of a bound method, where Gradio would look at the function that is wrapped, and count `self`.
    return _signed(answered, name, inspect.signature(answer))


def _signed(answer: Callable[..., Any], name: str, signature: inspect.Signature) -> Callable[..., AsyncGenerator[Any]]:
    answer.__name__, answer.__signature__ = name, signature
    return answer


@dataclass(frozen=True)
class Endpoint:
    """A tab's run for programs, whose job lives as long as the program listens."""

    run: Run

    def connect(self) -> None:
        """Offer it under the name of the task."""
        run, request = self.run, self.run.request
        specs = {name: spec for name, _, spec in request.declarations()}
        may_be_left_out = {name: optional(specs[name]) for name in fields_with_defaults(request.task)}
        if "speed" in specs:  # which a page may begin with another of, and a program should find as it was
            may_be_left_out["speed"] = optional(specs["speed"], FULL_QUALITY)
        # Without a trigger of its own the endpoint needs a button that nobody sees.
        gr.Button(visible=False).click(
            named(self.answer, request.task.replace("-", "_")),
            outputs=[run.result.video, run.result.seed, run.result.settings],
            inputs_kwargs={**run.controls.inputs, **may_be_left_out},
            preprocess=False,
            concurrency_limit=None,
            api_name=request.task,
            api_description=describe(request),
        )

    @may_leave_out_what_has_defaults
    async def answer(
        self,
        model: str,
        request: gr.Request,
        progress: gr.Progress = gr.Progress(),  # noqa: B008 - Gradio finds the parameter by this default
        **values: Any,
    ) -> AsyncGenerator[tuple[str | None, int, dict[str, Any]]]:
        """The video appears in the last answer, the seed in each."""
        queue = self.run.services.queue
        try:
            job = self.run.job(model, values)
            entry = self.run.services.submitted(job, request.session_hash, request, (PLAYABLE,))
        except Exception as error:
            raise gr.Error(explained(error), print_exception=False) from error
        try:
            async with aclosing(queue.watched(entry, self.run.services.listening(request))) as news:
                async for standing, place in news:
                    if isinstance(standing.state, Failed):
                        raise gr.Error(standing.state.sentence, print_exception=False)
                    told = told_to_programs(standing.state, place)
                    progress(told[:2], desc=told[2], unit=told[3])
                    if not standing.is_over:
                        yield None, job.request.seed, {}
            stored = entry.standing.stored
            if stored is None and isinstance(entry.standing.state, Stopped):  # on the page, by its owner
                raise gr.Error("Stopped before the video was made.", print_exception=False)
            yield stored and str(stored.files[PLAYABLE]), job.request.seed, dict(stored.settings) if stored else {}
        finally:
            queue.stop(entry)  # of no effect on one that is over


def told_to_programs(state: State, place: int | None) -> tuple[int, int, str, str]:
    """How a job stands: step, steps, stage and unit."""
    match state:
        case Running(progress):
            return progress.step, progress.of, progress.stage, progress.unit
        case Queued():
            return 0, 1, "In the queue" + (", paused" if place is None else f": {place} before this one"), "steps"
        case _:
            return 1, 1, "Done", "steps"


def describe(request: type[Request]) -> str:
    """The endpoint in words: what comes of it, and every field with its range and its help."""
    told = f"{request.title}. Answers with the video, the seed and all settings."
    left_out = (
        f"If left out, {', '.join(fields_with_defaults(request.task))} take the defaults of the model and its speed."
    )
    fields = [
        f"- {name}: {spec.help}{f' ({spec.takes})' if spec.takes else ''}" for name, _, spec in request.declarations()
    ]
    return "\n".join((told, left_out, *fields))
