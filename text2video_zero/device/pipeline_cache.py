"""The pipeline cache: what is loaded, what two pipelines share, and which leaves when room is short."""

from __future__ import annotations

import gc
import threading
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from text2video_zero.device.copies import TUNED
from text2video_zero.device.memory import Holding, free_unused, has_own_memory, to_send_away, weight_bytes
from text2video_zero.device.offload import bring
from text2video_zero.errors import ran_out_of_memory

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    import torch
    from diffusers import ControlNetModel

    from text2video_zero.models.checkpoints import Checkpoint
    from text2video_zero.models.files.fingerprints import Stamp
    from text2video_zero.models.pipeline import Pipeline
    from text2video_zero.sampling.safety import SafetyChecker


@dataclass
class _CachedPipeline:
    """A loaded pipeline, the state of its files when they were read, and how many runs use it."""

    pipeline: Pipeline
    stamp: Stamp = ()
    runs: int = 0

    @property
    def modules(self) -> tuple[torch.nn.Module, ...]:
        """Its networks; pipelines of one base have some of them in common."""
        return self.pipeline.networks

    def holding(self, counts: Callable[[torch.nn.Module], bool] = lambda _: True) -> Holding:
        """The networks that count, with their sizes."""
        parts = {id(module): weight_bytes([module]) for module in self.modules if counts(module)}
        return Holding(parts, in_use=self.runs > 0)


class PipelineCache:
    """Loaded pipelines by checkpoint, on a device or waiting in the CPU's memory.

    device_budget: bytes that weights may fill on the device. When a new pipeline would exceed them, those that
        nobody uses leave, the least recently used first: from a GPU to the CPU's memory, from there for good.
    cpu_budget: the same for weights that wait in the CPU's memory; of no meaning where that is the device's, too.
    stamp_of: tells the state of a checkpoint's files; what was read from others is read anew.
    loading: held while something is read, so that nothing is read twice; taken by other readers too.
    """

    def __init__(
        self,
        device: torch.device,
        device_budget: int,
        cpu_budget: int,
        stamp_of: Callable[[Checkpoint], Stamp] = lambda _: (),
    ) -> None:
        self.device = device
        self._stamp_of = stamp_of
        self.device_budget = device_budget
        self.cpu_budget = cpu_budget
        self._entries: dict[Checkpoint, _CachedPipeline] = {}  # the least recently used first
        self._lock = threading.Lock()  # held for moments: guards _entries
        self.loading = threading.Lock()  # held for as long as a load takes: one at a time

    def __contains__(self, checkpoint: Checkpoint) -> bool:
        self._forget_changed()
        return checkpoint in self._entries

    @contextmanager
    def in_use(self, checkpoint: Checkpoint, load: Callable[[Checkpoint], Pipeline]) -> Generator[Pipeline]:
        """The pipeline of a checkpoint, which stays as long as this is open; its weights are on the device.

        load: reads a pipeline into the CPU's memory; of two threads that ask for one checkpoint one calls it.
        What does not fit on the device as a whole stays on the CPU.
        """
        self._forget_changed()
        entry = self._ready(checkpoint)
        if entry is None:
            with self.loading:
                entry = self._ready(checkpoint)  # somebody else may have loaded it meanwhile
                if entry is None:
                    entry = self._entries.get(checkpoint) or self._loaded(checkpoint, load)
                    self._put(checkpoint, entry)
        try:
            yield entry.pipeline
        finally:
            with self._lock:
                entry.runs -= 1

    def _loaded(self, checkpoint: Checkpoint, load: Callable[[Checkpoint], Pipeline]) -> _CachedPipeline:
        stamp = self._stamp_of(checkpoint)  # of before: what changes meanwhile is read anew the next time
        return _CachedPipeline(load(checkpoint), stamp)

    def _forget_changed(self) -> None:
        """Let go of pipelines whose files are others now; runs that have one keep it to their end."""
        with self._lock:
            changed = [known for known, entry in self._entries.items() if entry.stamp != self._stamp_of(known)]
            for checkpoint in changed:
                del self._entries[checkpoint]

    def keep(self, pipeline: Pipeline) -> None:
        """Keep a pipeline that nobody uses yet, for others that are made of it; it waits in the CPU's memory."""
        stamp = self._stamp_of(pipeline.checkpoint)
        with self._lock:
            self._entries.setdefault(pipeline.checkpoint, _CachedPipeline(pipeline, stamp))

    def untouched(self, checkpoint: Checkpoint) -> Pipeline | None:
        """A loaded pipeline of the same weights without any LoRA."""
        plain = replace(checkpoint.base, adapters=())
        return next((other for other in self._pipelines if other.checkpoint.base == plain), None)

    def base(self, checkpoint: Checkpoint) -> Pipeline | None:
        """A loaded pipeline of the same base, whatever its ControlNet."""
        return next((other for other in self._pipelines if other.checkpoint.base == checkpoint.base), None)

    def controlnet(self, checkpoint: Checkpoint) -> ControlNetModel | None:
        """The checkpoint's ControlNet, if a loaded pipeline has it."""
        key = checkpoint.controlnet_key
        return next((other.controlnet for other in self._pipelines if other.checkpoint.controlnet_key == key), None)

    def safety_checker(self) -> SafetyChecker | None:
        """The safety checker, if a loaded pipeline has it."""
        checkers = (other.safety_checker for other in self._pipelines)
        return next((checker for checker in checkers if checker is not None), None)

    def parts(self, checkpoint: Checkpoint) -> dict[str, object]:
        """Components of loaded pipelines that reading the checkpoint would only bring a second time."""
        parts: dict[str, object] = {}
        for other in self._pipelines:
            known = other.checkpoint
            if (known.source, known.revision) != (checkpoint.source, checkpoint.revision):
                continue
            tuned: set[str] = set()
            if known.adapters or checkpoint.adapters:  # adapters are added to the weights themselves
                tuned |= set(TUNED)
            if (known.unet, known.unet_revision) != (checkpoint.unet, checkpoint.unet_revision):
                tuned.add("unet")
            components = other.components.components
            parts |= {name: part for name, part in components.items() if part is not None and name not in tuned}
        return parts

    def with_vae(self, vae: torch.nn.Module) -> Pipeline | None:
        """A loaded pipeline that has this VAE."""
        return next((other for other in self._pipelines if other.components.vae is vae), None)

    @property
    def _pipelines(self) -> list[Pipeline]:
        with self._lock:
            return [entry.pipeline for entry in self._entries.values()]

    def _is_on_device(self, module: torch.nn.Module) -> bool:
        return next(module.parameters()).device.type == self.device.type

    def _ready(self, checkpoint: Checkpoint) -> _CachedPipeline | None:
        """The entry of a checkpoint, counted as in use; None unless all its weights are on the device."""
        with self._lock:
            entry = self._entries.get(checkpoint)
            if entry is None or not all(self._is_on_device(module) for module in entry.modules):
                return None
            self._entries[checkpoint] = self._entries.pop(checkpoint)  # now the most recently used
            entry.runs += 1
            return entry

    def _put(self, checkpoint: Checkpoint, entry: _CachedPipeline) -> None:
        """Bring an entry to the device, if it fits there, and keep it, counted as in use."""
        self._bring_to_device(entry)
        with self._lock:
            self._entries.pop(checkpoint, None)
            self._entries[checkpoint] = entry
            entry.runs += 1

    def _bring_to_device(self, wanted: _CachedPipeline) -> None:
        """Make room by the rules of the budgets, then move what is not there yet.

        What does not fit as a whole stays on the CPU: the run brings its networks to the device one by one.
        """
        self._make_room(wanted, self.device_budget)
        missing = [module for module in wanted.modules if not self._is_on_device(module)]
        try:
            for module in missing:
                module.to(self.device)
        except RuntimeError as error:
            if not ran_out_of_memory(error):
                raise
            # The budget knows nothing of other programs on the same GPU: try once more with nothing else there.
            self._make_room(wanted, 0)
            bring(missing, self.device)

    def _make_room(self, wanted: _CachedPipeline, budget: int) -> None:
        """Send unused pipelines away, the least recently used first, until the wanted one fits."""
        with self._lock:
            others = {checkpoint: entry for checkpoint, entry in self._entries.items() if entry is not wanted}
            holdings = [entry.holding(self._is_on_device) for entry in others.values()]
            leaving = to_send_away(holdings, wanted.holding(), budget)
            if not has_own_memory(self.device):
                self._drop(others, leaving)
            else:
                staying = [entry for number, entry in enumerate(others.values()) if number not in leaving]
                needed = {id(module) for entry in (wanted, *staying) for module in entry.modules}
                for number in leaving:
                    for module in list(others.values())[number].modules:
                        if id(module) not in needed:
                            module.to("cpu")
                waiting = [entry.holding(lambda module: not self._is_on_device(module)) for entry in others.values()]
                self._drop(others, to_send_away(waiting, Holding({}), self.cpu_budget))
        self.free_unused()

    def _drop(self, entries: dict[Checkpoint, _CachedPipeline], numbers: list[int]) -> None:
        for number in numbers:
            del self._entries[list(entries)[number]]

    def free_unused(self) -> None:
        """Hand the memory back that nothing refers to any more."""
        gc.collect()
        free_unused(self.device)
