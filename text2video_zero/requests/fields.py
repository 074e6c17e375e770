"""Fields of a request: default, range, label and help are declared once, here read by form, CLI, API and checks.

A request is a frozen dataclass whose fields are made by `text`, `integer`, `decimal`, `flag`, `choice`,
`size`, `clip` and `picture`. The declaration travels in the dataclass field's metadata; `Request` checks every value
against it.
"""

from __future__ import annotations

import dataclasses
import math
import re
import reprlib
from contextlib import contextmanager
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, Self

from text2video_zero.errors import FieldError, UserError

if TYPE_CHECKING:
    from collections.abc import Generator

SEED_LIMIT = 2**32
LONGEST_TEXT = 5000  # letters: more than any prompt needs, and no burden to read and to keep
LATENT_FACTOR = 8  # pixels per latent cell and side, of every Stable Diffusion and of Toyland
SMALLEST_SIDE, LARGEST_SIDE = 64, 2048  # of a video, in pixels
# The groups of a form, in the order in which they are shown.
SECTIONS = BASICS, START, CLIP, CONTROL, MOTION, CONSISTENCY, SAMPLING = (
    "Basics",
    "Begin with a picture",
    "Clip",
    "Control",
    "Motion",
    "Consistency",
    "Sampling",
)


class Kind(Enum):
    """The few kinds of field there are; a form has one widget and the CLI one parser for each."""

    TEXT = "text"
    INTEGER = "integer"
    DECIMAL = "decimal"
    FLAG = "flag"
    CHOICE = "choice"
    SIZE = "size"
    CLIP = "clip"
    PICTURE = "picture"


FILES = frozenset({Kind.CLIP, Kind.PICTURE})
"""Kinds whose value is the path of a file that the person brings."""


class Size(NamedTuple):
    """Width and height of a video in pixels."""

    width: int
    height: int

    def __str__(self) -> str:
        return f"{self.width}x{self.height}"

    @classmethod
    def parse(cls, value: str) -> Self:
        """Read "768x512"; raises UserError when the text is anything else."""
        match = re.fullmatch(r"\s*(\d{1,5})\s*[x×*]\s*(\d{1,5})\s*", value, re.IGNORECASE)
        if match is None:
            raise UserError(f"The size {_quoted(value)} is not of the form WIDTHxHEIGHT: write for example 512x512.")
        return cls(int(match[1]), int(match[2]))


@dataclass(frozen=True)
class FieldSpec:
    """What a field declares beside its name and default.

    minimum, maximum: inclusive bounds of a number, or of each side of a size in pixels; 0 for all other kinds.
    step: the smallest sensible change, for sliders.
    choices: the values of a CHOICE, in the order in which they are offered.
    section: the group of the form that the field stands in.
    required: a text that must not be blank.
    lines: height of a text box.
    """

    kind: Kind
    label: str
    help: str
    section: str
    minimum: float = 0
    maximum: float = 0
    step: float = 1
    choices: tuple[str, ...] = ()
    required: bool = False
    lines: int = 1

    @property
    def takes(self) -> str:
        """The values that it takes, in words; blank where it takes any text, file or yes and no."""
        match self.kind:
            case Kind.CHOICE:
                return ", ".join(self.choices)
            case Kind.INTEGER | Kind.DECIMAL:
                return f"{_written(self.minimum)} to {_written(self.maximum)}"
            case Kind.SIZE:
                return f"sides {_written(self.minimum)} to {_written(self.maximum)}"
            case _:
                return ""

    def checked(self, value: Any) -> Any:
        """Return the value in its proper type.

        Raises FieldError, naming the value and the remedy, when it is of another kind or out of range.
        """
        match self.kind:
            case Kind.TEXT | Kind.CLIP | Kind.PICTURE:
                return self._checked_text(value)
            case Kind.INTEGER | Kind.DECIMAL:
                return self._checked_number(value)
            case Kind.FLAG:
                if not isinstance(value, bool):
                    raise FieldError(f"{self.label} is {_quoted(value)}: choose yes (true) or no (false).")
                return value
            case Kind.CHOICE:
                if value not in self.choices:
                    raise FieldError(f"{self.label} is {_quoted(value)}: choose one of {', '.join(self.choices)}.")
                return value
            case Kind.SIZE:
                return self._checked_size(value)

    def _checked_text(self, value: Any) -> str:
        if not isinstance(value, str):
            raise FieldError(f"{self.label} is {_quoted(value)}: write a text.")
        # Half a character of UTF-16, which a broken client may send, can be neither tokenized nor stored.
        value = value.encode(errors="replace").decode().strip()
        if len(value) > LONGEST_TEXT:
            raise FieldError(f"{self.label} has {len(value)} letters: write at most {LONGEST_TEXT}.")
        if self.required and not value:
            remedy = "choose a file" if self.kind is Kind.CLIP else "write what you want to see"
            raise FieldError(f"{self.label} is empty: {remedy}.")
        return value

    def _checked_number(self, value: Any) -> float:
        whole = "whole " if self.kind is Kind.INTEGER else ""
        remedy = f"give a {whole}number from {_written(self.minimum)} to {_written(self.maximum)}"
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise FieldError(f"{self.label} is {_quoted(value)}: {remedy}.")
        if not self.minimum <= value <= self.maximum:
            raise FieldError(f"{self.label} is {_written(value)}, out of range: {remedy}.")
        if self.kind is Kind.DECIMAL:
            return float(value)
        if value != int(value):
            raise FieldError(f"{self.label} is {_written(value)}: {remedy}.")
        return int(value)

    def _checked_size(self, value: Any) -> Size | None:
        """A blank size stands for the model's own size, None."""
        if value is None or (isinstance(value, str) and not value.strip()):
            return None
        size = Size.parse(value) if isinstance(value, str) else self._size_of_pair(value)
        low, high, multiple = int(self.minimum), int(self.maximum), int(self.step)
        if not all(low <= side <= high for side in size):
            raise FieldError(f"{self.label} is {size}, but each side must lie between {low} and {high} pixels.")
        nearest = Size(*(min(max(round(side / multiple) * multiple, low), high) for side in size))
        if nearest != size:
            raise FieldError(f"{self.label} is {size}, but sides must be multiples of {multiple}: use {nearest}.")
        return size

    def _size_of_pair(self, value: Any) -> Size:
        try:
            width, height = value
        except (TypeError, ValueError):  # not two of anything
            width, height = math.nan, math.nan
        if not (_is_whole(width) and _is_whole(height)):
            raise FieldError(f"{self.label} is {_quoted(value)}: write for example 512x512.")
        return Size(int(width), int(height))


def _quoted(value: Any) -> str:
    """A value as messages show it: no more of it than a line has room for."""
    shown = reprlib.repr(value)
    return shown if len(shown) <= 60 else f"{shown[:57]}..."


def _is_whole(value: Any) -> bool:
    return not isinstance(value, bool) and (isinstance(value, int) or (isinstance(value, float) and value.is_integer()))


def _written(number: float) -> str:
    """A number as a person writes it: whole ones without a point, a seed with all its digits."""
    if isinstance(number, float) and not number.is_integer():
        return str(float(number))
    if abs(number) < 10**15:
        return str(int(number))
    return f"{min(max(number, -1e300), 1e300):g}"  # integers know no bounds, their formats do


def text(default: str, label: str, help: str, *, section: str, required: bool = False, lines: int = 1) -> Any:
    """Declare a text field."""
    spec = FieldSpec(Kind.TEXT, label, help, section, required=required, lines=lines)
    return dataclasses.field(default=default, metadata={"spec": spec})


def integer(default: int, minimum: int, maximum: int, label: str, help: str, *, section: str, step: int = 1) -> Any:
    """Declare a whole number within inclusive bounds."""
    spec = FieldSpec(Kind.INTEGER, label, help, section, minimum, maximum, step)
    return dataclasses.field(default=default, metadata={"spec": spec})


def decimal(default: float, minimum: float, maximum: float, label: str, help: str, *, section: str, step: float) -> Any:
    """Declare a number within inclusive bounds."""
    spec = FieldSpec(Kind.DECIMAL, label, help, section, minimum, maximum, step)
    return dataclasses.field(default=default, metadata={"spec": spec})


def flag(default: bool, label: str, help: str, *, section: str) -> Any:  # noqa: FBT001
    """Declare a switch."""
    return dataclasses.field(default=default, metadata={"spec": FieldSpec(Kind.FLAG, label, help, section)})


def choice(default: str, choices: tuple[str, ...], label: str, help: str, *, section: str) -> Any:
    """Declare one of a few named values."""
    spec = FieldSpec(Kind.CHOICE, label, help, section, choices=choices)
    return dataclasses.field(default=default, metadata={"spec": spec})


def size(label: str, help: str, *, section: str) -> Any:
    """Declare a size in pixels, of whole latent cells; its default None stands for the model's own size."""
    spec = FieldSpec(Kind.SIZE, label, help, section, SMALLEST_SIDE, LARGEST_SIDE, LATENT_FACTOR)
    return dataclasses.field(default=None, metadata={"spec": spec})


def clip(label: str, help: str, *, section: str) -> Any:
    """Declare the path of a clip that the person brings."""
    spec = FieldSpec(Kind.CLIP, label, help, section, required=True)
    return dataclasses.field(default="", metadata={"spec": spec})


def picture(label: str, help: str, *, section: str) -> Any:
    """Declare the path of a picture that the person may bring; blank where there is none."""
    return dataclasses.field(default="", metadata={"spec": FieldSpec(Kind.PICTURE, label, help, section)})


@dataclass(frozen=True)
class Request:
    """One typed, checked order for a video. Subclasses declare the fields of their task.

    task: name in the command line and the API ("text-to-video").  title: name on the tab.
    Making one raises FieldError for the first field that is out of range.
    """

    task: ClassVar[str]
    title: ClassVar[str]

    def __post_init__(self) -> None:
        for name, _, spec in self.declarations():
            # The dataclass is frozen for everybody else; the checked value replaces what was given.
            object.__setattr__(self, name, spec.checked(getattr(self, name)))

    @classmethod
    def declarations(cls) -> list[tuple[str, Any, FieldSpec]]:
        """Name, default and declaration of every field, in the order in which a form shows them."""
        declared = [(field.name, field.default, field.metadata["spec"]) for field in dataclasses.fields(cls)]
        return sorted(declared, key=lambda declaration: SECTIONS.index(declaration[2].section))

    @classmethod
    def in_options(cls, sentence: str) -> str:
        """A sentence about fields that calls them by their options ("--pan-x") in place of labels; quotations stay."""
        options = {spec.label: f"--{name.replace('_', '-')}" for name, _, spec in cls.declarations()}
        longest_first = "|".join(re.escape(label) for label in sorted(options, key=len, reverse=True))
        words = rf"'[^']*'|\"[^\"]*\"|\b(?:{longest_first})\b"
        return re.sub(words, lambda found: options.get(found[0], found[0]), sentence)

    @classmethod
    @contextmanager
    def naming_options(cls) -> Generator[None]:
        """For a command line, where nobody sees labels: a FieldError becomes a UserError that names the option."""
        try:
            yield
        except FieldError as error:
            raise UserError(cls.in_options(str(error))) from error

    @property
    def files(self) -> dict[str, str]:
        """Field -> path of each file that the person brought."""
        paths = {name: getattr(self, name) for name, _, spec in self.declarations() if spec.kind in FILES}
        return {name: path for name, path in paths.items() if path}

    def to_dict(self) -> dict[str, Any]:
        """Field values in JSON types; `from_dict` reads them back. Sizes are written as "512x512"."""
        values = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        return {name: str(value) if isinstance(value, Size) else value for name, value in values.items()}

    @classmethod
    def from_dict(cls, values: Any) -> Self:
        """Make a request from `to_dict`'s output, or of whatever a program sends for it.

        Raises UserError for what is no dict, for unknown names and for bad values.
        """
        if not isinstance(values, dict):
            raise UserError(f"The settings of {cls.task} are {_quoted(values)}: give names with their values.")
        unknown = sorted(set(values) - {name for name, _, _ in cls.declarations()})
        if unknown:
            raise UserError(f"{cls.task} has no setting {', '.join(unknown)}: remove it from the settings.")
        return cls(**values)
