"""Deep features that last for several steps (Ma et al. 2023, "DeepCache: Accelerating Diffusion Models for Free").

From one step to the next the depths of a UNet say nearly the same. So the whole network runs at every few steps only,
and leaves what its last layer is given from below, frame by frame; at the steps between, the first convolution and
that last layer alone run, on what was left. A ControlNet then rests too: of what it adds, the last layer sees the first
residual, which is kept likewise.

The first step of each part of a run is a whole one. What is kept belongs to a frame, so that the chunk size does not
matter.
"""

from __future__ import annotations

from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

import torch
from diffusers.models.unets.unet_2d_condition import UNet2DConditionOutput

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from diffusers import ControlNetModel, UNet2DConditionModel

    from text2video_zero.attention.branches import Branches

    Forward = Callable[..., Any]

# The last block on the way up, of those that these families have; diffusers' lists of them hold plain modules.
UpBlock = Any


class DeepCache:
    """What the last whole pass has left of each frame: for the last layer, and of a ControlNet.

    interval: steps from one whole pass to the next, 2 or more.  branches: of the batches that go through the models.
    deep, control: by frame, each (branches, c, h, w).  runs_whole: whether the pass that comes next is a whole one.
    """

    def __init__(self, interval: int, branches: Branches) -> None:
        self.interval = interval
        self.branches = branches
        self.deep: dict[int, torch.Tensor] = {}
        self.control: dict[int, torch.Tensor] = {}
        self.runs_whole = True
        self._frames: range | None = None  # that go through now
        self._holds_all = True

    def is_whole(self, step: int) -> bool:
        """Whether the whole network runs at a step of a part of a run, counted from 1."""
        return (step - 1) % self.interval == 0

    @contextmanager
    def open(self, step: int, frames: slice, of: int) -> Generator[None]:
        """While this is open, some of so many frames go through the models at a step."""
        self._frames, self.runs_whole = range(frames.start, frames.stop), self.is_whole(step)
        self._holds_all = len(self._frames) == of
        try:
            yield
        finally:
            self._frames, self.runs_whole = None, True

    def keep(self, kept: dict[int, torch.Tensor], features: torch.Tensor) -> None:
        """Keep features (branches·m, c, h, w) of the frames that go through now.

        Where those are not all frames, they wait in the CPU's memory: the device's holds a chunk.
        """
        if self._frames is None:
            return
        by_branch = features.unflatten(0, (self.branches.present, -1))
        if not self._holds_all:
            by_branch = by_branch.cpu()
        kept.update((frame, by_branch[:, number]) for number, frame in enumerate(self._frames))

    def kept(self, kept: dict[int, torch.Tensor], like: torch.Tensor) -> torch.Tensor | None:
        """Features (branches·m, c, h, w) of the frames that go through now; None where some have left none."""
        frames = self._frames or ()
        if any(frame not in kept for frame in frames):
            return None
        return torch.stack([kept[frame][-self.branches.present :] for frame in frames], 1).flatten(0, 1).to(like)


@contextmanager
def deep_cache(
    interval: int, branches: Branches, unet: UNet2DConditionModel, controlnet: ControlNetModel | None = None
) -> Generator[DeepCache | None]:
    """Let the models run whole at every so many steps only; leaving restores what was there, bit for bit.

    interval: 1 patches nothing, and yields None.
    """
    if interval == 1:
        yield None
        return
    cache = DeepCache(interval, branches)
    last = unet.up_blocks[-1]
    with ExitStack() as patches:
        patches.enter_context(_with_forward(last, _keeping_forward(last, cache)))
        patches.enter_context(_with_forward(unet, _shallow_forward(unet, unet.forward, cache)))
        if controlnet is not None:
            patches.enter_context(_with_forward(controlnet, _resting_forward(controlnet.forward, cache)))
        yield cache


@contextmanager
def _with_forward(module: torch.nn.Module, forward: Forward) -> Generator[None]:
    before = vars(module).get("forward")  # where a hook has put its own
    module.forward = forward
    try:
        yield
    finally:
        if before is None:
            del module.forward
        else:
            module.forward = before


def _layer(
    block: UpBlock, number: int, hidden: torch.Tensor, skip: torch.Tensor, time: torch.Tensor, text: torch.Tensor | None
) -> torch.Tensor:
    """One layer of a block on the way up: a ResNet block, and a transformer where the block has any."""
    hidden = block.resnets[number](torch.cat([hidden, skip], dim=1), time)
    if not getattr(block, "attentions", None):
        return hidden
    return block.attentions[number](hidden, encoder_hidden_states=text, return_dict=False)[0]


def _keeping_forward(block: UpBlock, cache: DeepCache) -> Forward:
    """That of the last block on the way up, which keeps what its last layer is given."""

    def forward(
        hidden_states: torch.Tensor,
        temb: torch.Tensor,
        res_hidden_states_tuple: tuple[torch.Tensor, ...],
        encoder_hidden_states: torch.Tensor | None = None,
        **_: None,  # what these families never give
    ) -> torch.Tensor:
        for number, skip in enumerate(reversed(res_hidden_states_tuple)):
            if number == len(block.resnets) - 1:
                cache.keep(cache.deep, hidden_states)
            hidden_states = _layer(block, number, hidden_states, skip, temb, encoder_hidden_states)
        return hidden_states

    return forward


def _shallow_forward(unet: UNet2DConditionModel, whole: Forward, cache: DeepCache) -> Forward:
    """The UNet's, from its first convolution right to its last layer where the pass is no whole one."""

    def forward(
        sample: torch.Tensor,
        timestep: float,
        encoder_hidden_states: torch.Tensor,
        **named: Any,
    ) -> UNet2DConditionOutput:
        if cache.runs_whole or (deep := cache.kept(cache.deep, sample)) is None:
            return whole(sample, timestep, encoder_hidden_states, **named)
        # As UNet2DConditionModel.forward has it, for models without class labels.
        time = unet.time_embedding(unet.get_time_embed(sample, timestep))
        added = unet.get_aug_embed(time, encoder_hidden_states, named.get("added_cond_kwargs") or {})
        time = time if added is None else time + added
        skip = unet.conv_in(sample)
        if (residuals := named.get("down_block_additional_residuals")) is not None:
            skip = skip + residuals[0]
        hidden = _layer(unet.up_blocks[-1], -1, deep, skip, time, encoder_hidden_states)
        for layer in (unet.conv_norm_out, unet.conv_act):
            hidden = hidden if layer is None else layer(hidden)
        return UNet2DConditionOutput(sample=unet.conv_out(hidden))

    return forward


def _resting_forward(whole: Forward, cache: DeepCache) -> Forward:
    """A ControlNet's, which says again what it said first where the pass is no whole one."""

    def forward(sample: torch.Tensor, *others: Any, **named: Any) -> tuple[list[torch.Tensor], torch.Tensor | None]:
        if not cache.runs_whole and (first := cache.kept(cache.control, sample)) is not None:
            return [first], None
        down, middle = whole(sample, *others, **named)
        cache.keep(cache.control, down[0])
        return down, middle

    return forward
