"""From the declared fields of a request to the widgets of a form, and back."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, Literal, TypedDict, TypeVar

import gradio as gr

from text2video_zero.requests import FieldSpec, Kind, Request
from text2video_zero.requests.fields import FILES, LATENT_FACTOR

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

Widget = TypeVar("Widget")
# Widget -> its new value, or Gradio's update of it; the many kinds of widget have no type in common.
Update = dict[Any, Any]
Field = gr.Textbox | gr.Number | gr.Slider | gr.Checkbox | gr.Radio | gr.Dropdown | gr.File


class Listening(TypedDict):
    """Options of Gradio's listeners."""

    queue: bool
    show_progress: Literal["hidden"]
    api_visibility: Literal["private"]


class Waiting(TypedDict):
    """The same of listeners that may take their time."""

    concurrency_limit: None
    show_progress: Literal["hidden"]
    api_visibility: Literal["private"]


class Described(TypedDict):
    """Options that all widgets but the file's have in common."""

    label: str
    info: str | None
    elem_id: str
    interactive: bool


QUIETLY: Listening = {"queue": False, "show_progress": "hidden", "api_visibility": "private"}
"""For listeners that change the page while a person fills it in."""

PLAIN = {"prompt", "frames", "fps", "seed"}
"""Fields whose label says it all to whoever sees them among the others."""

TYPED = {"fps", "play_fps"}
"""Numbers that are typed, however few there are to choose from."""

IN_TURN: Waiting = {"concurrency_limit": None, "show_progress": "hidden", "api_visibility": "private"}
"""For listeners that wait for jobs; and that set a state which others follow, of whose change Gradio tells in its queue
alone. Any number at once."""

LONGEST_SLIDER = 100
"""Whole numbers to choose from, above which a slider is too coarse to hit one and a number is typed instead."""

SLIDER_WIDTH = 240
"""Pixels, at least: on a phone no slider shares its row, where its help would be a column of single words."""

MOST_RADIO_BUTTONS = 3

PICTURE_TYPES = ("image", ".heic", ".heif", ".avif", ".jfif")
CLIP_TYPES = (
    *("video", ".mkv", ".mts", ".m2ts", ".m2t", ".ts", ".vob", ".m2v", ".dv", ".mxf", ".flv", ".ogv"),
    *(*PICTURE_TYPES, ".zip"),
)
"""What a browser offers to choose; whether it can be read turns out when it is."""

SHAPES = {"square": (1, 1), "wide 16:9": (16, 9), "wide 4:3": (4, 3), "tall 9:16": (9, 16), "tall 3:4": (3, 4)}


def widget(  # noqa: PLR0911 - one for each kind
    name: str, default: Any, spec: FieldSpec, task: str, buttons: list[gr.Button] | None = None
) -> Field:
    """The widget of one field, rendered where it is called.

    buttons: small buttons in the corner of a number that is typed.
    """
    info = None if name in PLAIN else spec.help
    shared: Described = {"label": spec.label, "info": info, "elem_id": f"{task}-{name}", "interactive": True}
    match spec.kind:
        case Kind.CLIP | Kind.PICTURE:
            return file_widget(name, spec, task)
        case Kind.TEXT:
            return gr.Textbox(default, lines=spec.lines, max_lines=max(spec.lines, 6), **shared)
        case Kind.INTEGER if name in TYPED or spec.maximum - spec.minimum > LONGEST_SLIDER:
            return gr.Number(
                default,
                minimum=spec.minimum,
                maximum=spec.maximum,
                step=spec.step,
                precision=0,
                buttons=buttons,
                **shared,
            )
        case Kind.INTEGER:
            return gr.Slider(
                spec.minimum, spec.maximum, default, step=spec.step, precision=0, min_width=SLIDER_WIDTH, **shared
            )
        case Kind.DECIMAL:
            return gr.Slider(spec.minimum, spec.maximum, default, step=spec.step, min_width=SLIDER_WIDTH, **shared)
        case Kind.FLAG:
            return gr.Checkbox(default, **shared)
        case Kind.CHOICE if len(spec.choices) <= MOST_RADIO_BUTTONS:
            return gr.Radio(list(spec.choices), value=default, **shared)
        case Kind.CHOICE:
            return gr.Dropdown(list(spec.choices), value=default, **shared)
        case Kind.SIZE:
            return gr.Dropdown(sizes(), value=shown(default), allow_custom_value=True, **shared)


def sizes(side: int = 512) -> list[tuple[str, str]]:
    """Sizes of several shapes to choose from, with the area that a model draws best; label and value.

    side: of the model's own square, in pixels.
    """
    offered = [("automatic", "")]
    for name, (wide, high) in SHAPES.items():
        width, height = (
            round(side * (ratio**0.5) / LATENT_FACTOR) * LATENT_FACTOR for ratio in (wide / high, high / wide)
        )
        offered.append((f"{name}, {width}x{height}", f"{width}x{height}"))
    return offered


def file_widget(name: str, spec: FieldSpec, task: str) -> gr.File:
    """The widget of a clip or a picture that is a file; it has no room for the help.

    No gr.Image for a picture: where values come unprocessed, it takes any path of this machine from strangers.
    """
    what, types, height = (
        ("a video, a GIF, or a zip of pictures", CLIP_TYPES, 140)
        if spec.kind is Kind.CLIP
        else ("a photo or drawing that comes to life", PICTURE_TYPES, 110)
    )
    label = f"{spec.label}: {what}"
    return gr.File(file_types=list(types), height=height, label=label, elem_id=f"{task}-{name}", interactive=True)


def optional(spec: FieldSpec, value: str | None = None) -> Field:
    """A field that programs may leave out; nobody sees it. value: of a choice, what it is then."""
    match spec.kind:
        case Kind.INTEGER | Kind.DECIMAL:
            precision = 0 if spec.kind is Kind.INTEGER else None
            return gr.Number(None, precision=precision, label=spec.label, visible=False)
        case Kind.CHOICE:
            return gr.Dropdown(list(spec.choices), value=value, label=spec.label, visible=False)
        case _:
            return gr.Textbox(None, label=spec.label, visible=False)


def the(kind: type[Widget], fields: Mapping[str, Field], name: str) -> Widget:
    """A field's widget, which is known to be of a kind."""
    found = fields[name]
    if not isinstance(found, kind):
        raise TypeError(f"the widget of {name} is a {type(found).__name__}, not a {kind.__name__}")
    return found


def shown(value: Any) -> Any:
    """A field's value as its widget takes it: no size is an empty text."""
    return "" if value is None else value


def given(request: type[Request], values: Mapping[str, Any]) -> dict[str, Any]:
    """Values as the request takes them, from widgets' unprocessed ones: of uploaded files only their paths.

    Gradio itself refuses paths that are not of files which this page was given.
    """
    kinds = {name: spec.kind for name, _, spec in request.declarations()}
    return {name: path_of(value) if kinds.get(name) in FILES else value for name, value in values.items()}


def path_typed(path: str | None) -> str:
    """A path as people type or paste it: ~ is their home, as on the command line, and quotes around it are no part."""
    bare = (path or "").strip().strip("\"'")
    return os.path.expanduser(bare)  # noqa: PTH111 - Path.expanduser fails where nobody has that name


def path_of(upload: Any) -> Any:
    """The path of an uploaded file as widgets pass it unprocessed; blank while there is none.

    It is blank for a folder, too, which nobody uploads: a program may name the one where all videos are kept.
    """
    if upload is None:
        return ""
    path = upload.get("path", "") if isinstance(upload, dict) else getattr(upload, "path", upload)
    return "" if isinstance(path, str) and os.path.isdir(path) else path  # noqa: PTH112 - Path fails for some texts


def sections(request: type[Request], leave_out: Iterable[str] = ()) -> dict[str, list[str]]:
    """Section -> names of its fields, both in the order of the declaration."""
    hidden = set(leave_out)
    named: dict[str, list[str]] = {}
    for name, _, spec in request.declarations():
        if name not in hidden:
            named.setdefault(spec.section, []).append(name)
    return named


def required(request: type[Request]) -> list[str]:
    """The fields without which nothing can begin; they stand on top of the form."""
    return [name for name, _, spec in request.declarations() if spec.required]
