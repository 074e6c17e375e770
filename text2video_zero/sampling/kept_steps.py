"""What a run has come to, kept on disk from step to step, so that another process goes on to the same end."""

from __future__ import annotations

import dataclasses
import json
import logging
import time
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from text2video_zero.media.files import STEPS_FILE, renamed_when_whole

if TYPE_CHECKING:
    from collections.abc import Generator, Mapping
    from pathlib import Path

    from text2video_zero.device.offload import Placement
    from text2video_zero.sampling.solvers import Solver

LOG = logging.getLogger(__name__)

SECONDS_BETWEEN = 2.0
"""Steps are written at most this often: a step that takes longer is written each time, a run that is shorter never."""

_MADE_BY, _PARTS = "made_by", "parts"


class Observer(Protocol):
    """Whoever watches the networks from step to step, and remembers what it sees."""

    def memory(self) -> dict[str, Any]:
        """What has been seen: tensors, numbers, and lists and dicts of them."""
        ...

    def recall(self, memory: Mapping[str, Any]) -> None:
        """See all that again."""
        ...


@dataclass(frozen=True)
class LoopState:
    """How the loop stands after a step: all that its next step hangs on.

    done: steps of this part of the run.  latents: (f, c, h, w) in the sampler's own scale.
    clean: the estimate of x_0, likewise.  solver: what it remembers of earlier steps.
    chunk_size, precision: what the placement has come to by then.
    observed: what an observer has seen up to then; empty where there is none.
    """

    done: int
    latents: torch.Tensor
    clean: torch.Tensor
    solver: Mapping[str, Any]
    chunk_size: int
    precision: int
    observed: Mapping[str, Any] = dataclasses.field(default_factory=dict[str, Any])

    @classmethod
    def of(
        cls, done: int, latents: torch.Tensor, clean: torch.Tensor, solver: Solver, placement: Placement
    ) -> LoopState:
        """What there is to keep after a step."""
        return cls(done, latents, clean, solver.memory(), placement.chunk_size, placement.precision)

    def recall(self, solver: Solver, placement: Placement) -> None:
        """Let solver and placement know again what they had come to."""
        solver.recall(self.solver)
        placement.recall(self.chunk_size, self.precision)


class KeptSteps:
    """The steps of one run. It has parts, each a call of `denoise`, which come in the same order in every process.

    told: a sentence for the person about what was found, blank where nothing was.
    """

    def __init__(
        self, folder: Path | None = None, made_by: Mapping[str, Any] | None = None, device: torch.device | None = None
    ) -> None:
        """Read what an earlier process has left in the folder, if it was about the same run.

        folder: is made when there is something to write; None keeps nothing.
        made_by: JSON values that tell one run from others; steps of a run that differs in any are not used.
        device: where the latents are wanted, the CPU if left out.
        """
        self.told = ""
        self._folder = folder
        self._made_by = json.loads(json.dumps(made_by or {}))
        self._device = device or torch.device("cpu")
        self._parts: dict[str, LoopState] = {}  # by their number; JSON's keys are texts
        self._part = -1
        self._observer: Observer | None = None
        self._written = time.monotonic()
        if folder is not None and (folder / STEPS_FILE).exists():
            self._read(folder / STEPS_FILE)

    @contextmanager
    def with_memory_of(self, observer: Observer) -> Generator[None]:
        """While this is open, what an observer has seen is kept with the steps, and recalled."""
        self._observer = observer
        try:
            yield
        finally:
            self._observer = None

    def begin(self) -> LoopState | None:
        """The next part begins: how it stood when it was cut off, or at its end; None where it had no step yet."""
        self._part += 1
        state = self._parts.get(str(self._part))
        if state is not None and self._observer is not None:
            self._observer.recall(state.observed)
        return state

    def keep(self, state: LoopState, *, is_last: bool) -> None:
        """Keep how the part that was begun stands; on disk too, unless something was written a moment ago.

        is_last: whether the part is over. One that is not need not be kept in memory.
        """
        if self._folder is None:
            return
        is_due = time.monotonic() - self._written >= SECONDS_BETWEEN
        if is_due or is_last:
            observed = self._observer.memory() if self._observer is not None else {}
            self._parts[str(self._part)] = dataclasses.replace(state, observed=observed)
        if is_due:
            self._write(self._folder)

    def _read(self, path: Path) -> None:
        try:
            with safe_open(path, "pt") as file:
                record = json.loads(file.metadata()["record"])
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - it is no dict
            others = {**record[_MADE_BY]}
            parts = _with_tensors(record[_PARTS], tensors, self._device)
            parts = {number: LoopState(**part) for number, part in parts.items()}
        except (SafetensorError, OSError, ValueError, KeyError, TypeError, AttributeError):
            self.told = "The steps that an earlier run has left are damaged: the video is begun again."
            return
        names = {**others, **self._made_by}
        if different := next((name for name in names if others.get(name) != self._made_by.get(name)), None):
            was, now = (facts.get(different, "none") for facts in (others, self._made_by))
            told = f": {was}, now {now}" if isinstance(was, str) and isinstance(now, str) else ""
            self.told = (
                f"The steps that an earlier run has left are not used (other {different}{told}): the video is begun "
                "again."
            )
            return
        self._parts = parts
        self.told = "Going on after the last step that an earlier run has kept."

    def _write(self, folder: Path) -> None:
        tensors: dict[str, torch.Tensor] = {}
        parts = {number: _without_tensors(vars(state), tensors) for number, state in self._parts.items()}
        record = json.dumps({_MADE_BY: self._made_by, _PARTS: parts})
        try:
            folder.mkdir(exist_ok=True)
            with renamed_when_whole(folder / STEPS_FILE) as temporary:
                temporary.write_bytes(save(tensors, {"record": record}))
        except OSError as error:
            LOG.warning("Steps cannot be kept in %s (%s): a run that is cut off begins again.", folder, error)
            self._folder = None
        self._written = time.monotonic()


def _without_tensors(value: Any, tensors: dict[str, torch.Tensor]) -> Any:
    """A value as JSON has it; its tensors are copied into `tensors`, with their number in their place."""
    match value:
        case torch.Tensor():
            name = str(len(tensors))
            tensors[name] = value.to("cpu", copy=True).contiguous()
            return {"tensor": name, "on_cpu": value.device.type == "cpu"}
        case dict():
            return {name: _without_tensors(part, tensors) for name, part in value.items()}
        case list():
            return [_without_tensors(part, tensors) for part in value]
        case _:
            return value


def _with_tensors(value: Any, tensors: Mapping[str, torch.Tensor], device: torch.device) -> Any:
    """The value of which `_without_tensors` made JSON; what was on the CPU stays there."""
    match value:
        case {"tensor": name, "on_cpu": on_cpu}:
            return tensors[name] if on_cpu else tensors[name].to(device)
        case dict():
            return {name: _with_tensors(part, tensors, device) for name, part in value.items()}
        case list():
            return [_with_tensors(part, tensors, device) for part in value]
        case _:
            return value
