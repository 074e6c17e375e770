"""What a model manager lends, and what it read for that."""

from __future__ import annotations

from unittest import mock

import torch
from diffusers import AutoencoderKL, ControlNetModel, UNet2DConditionModel
from transformers import CLIPTextModel


class LoadCount:
    """Counts what is read from disk, by class; the reading itself is the real one."""

    def __init__(self, *classes):
        self.counts = {cls.__name__: 0 for cls in classes}
        self._patches = [
            mock.patch.object(cls, "from_pretrained", self._counted(cls.__name__, cls.from_pretrained))
            for cls in classes
        ]

    def _counted(self, name, read):
        def counted(*arguments, **options):
            self.counts[name] += 1
            return read(*arguments, **options)

        return counted

    def __enter__(self):
        for patch in self._patches:
            patch.start()
        return self.counts

    def __exit__(self, *_):
        for patch in self._patches:
            patch.stop()


def loads():
    """Counts the networks that are read while it is open."""
    return LoadCount(UNet2DConditionModel, AutoencoderKL, CLIPTextModel, ControlNetModel)


def take(manager, checkpoint):
    """Lend and give back at once."""
    with manager.lend(checkpoint) as pipeline:
        return pipeline


def same_weights(ours, theirs):
    """Whether two networks have the same weights, bit for bit."""
    mine, others = ours.state_dict(), theirs.state_dict()
    return mine.keys() == others.keys() and all(torch.equal(mine[name], others[name]) for name in mine)
