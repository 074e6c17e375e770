"""DeepCache as a patch: whole passes are what they were, shallow ones follow from them, and it leaves no trace."""

from __future__ import annotations

import dataclasses
from contextlib import ExitStack

import pytest
import torch
from diffusers import UNet2DConditionModel
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.memory import UNETS
from tests.runs import sampled
from text2video_zero.attention.branches import Branches
from text2video_zero.attention.deep_cache import DeepCache, deep_cache
from text2video_zero.device.memory_plan import unet_bytes
from text2video_zero.generate import sample
from text2video_zero.generators import result_of
from text2video_zero.requests import EdgeRequest

KINDS = ("text", "text, XL", "pose", "edge", "edge, XL", "edit")


def normal(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def networks(lent):
    return [network for network in (lent.components.unet, lent.controlnet) if network is not None]


@pytest.fixture(params=KINDS)
def lent(request, orders, manager):
    with manager.lend(orders[request.param][0]) as lent:
        yield lent


@pytest.fixture
def noise_of(lent):
    """Noise of two frames in two branches, (4, 4, 8, 8), as the guidance asks for it, at a timestep."""
    unet, xl = lent.components.unet, lent.family == "sdxl"
    states, control = normal(4, 16, unet.config.cross_attention_dim, seed=1), normal(4, 3, 64, 64, seed=2)
    named = {"added_cond_kwargs": {"text_embeds": normal(4, 24, seed=3), "time_ids": torch.ones(4, 6)}} if xl else {}

    @torch.inference_mode()
    def predicted(timestep, seed=0):
        latents = normal(4, unet.config.in_channels, 8, 8, seed=seed)
        residuals = {}
        if lent.controlnet is not None:
            down, middle = lent.controlnet(latents, timestep, states, control, 2.0, return_dict=False, **named)
            residuals = {"down_block_additional_residuals": down, "mid_block_additional_residual": middle}
        return unet(latents, timestep, encoder_hidden_states=states, **named, **residuals).sample

    return predicted


def test_a_whole_pass_is_what_it_was_and_a_shallow_one_of_the_same_latents_as_well(lent, noise_of):
    before = noise_of(500)
    with deep_cache(3, Branches(2), *networks(lent)) as cache:
        with cache.open(1, slice(0, 2), 2):
            assert torch.equal(noise_of(500), before)
        with cache.open(2, slice(0, 2), 2):
            assert torch.equal(noise_of(500), before)
            assert not torch.equal(noise_of(500, seed=9), before)
            assert not torch.equal(noise_of(400), before)
        with cache.open(4, slice(0, 2), 2):
            other = noise_of(500, seed=9)
    assert torch.equal(noise_of(500, seed=9), other)


def test_the_memory_plan_reckons_with_what_is_kept(lent, noise_of):
    with deep_cache(2, Branches(2), *networks(lent)) as cache, cache.open(1, slice(0, 2), 2):
        noise_of(500)
    kept = sum(tensor.nbytes for kept in (cache.deep, cache.control) for tensor in kept.values())
    plain, reused = (
        unet_bytes(lent.components.unet, 8, 8, controlled=lent.controlnet is not None, reused=reused)
        for reused in (False, True)
    )
    assert kept == 4 * (reused - plain) > 0  # two frames in two branches


@pytest.mark.parametrize("error", [RuntimeError, GeneratorExit])
def test_leaving_restores_what_was_there(lent, noise_of, error):
    before = noise_of(500)
    patched = [module for network in networks(lent) for module in network.modules() if "forward" in vars(module)]
    with pytest.raises(error), deep_cache(2, Branches(2), *networks(lent)):
        raise error
    assert patched == [module for net in networks(lent) for module in net.modules() if "forward" in vars(module)]
    assert torch.equal(noise_of(500), before)


def test_a_forward_that_somebody_else_has_put_there_is_put_back(pipeline):
    unet = pipeline.components.unet
    theirs = unet.forward = unet.forward
    with deep_cache(2, Branches(1), unet):
        assert unet.forward is not theirs
    assert vars(unet)["forward"] is theirs
    del unet.forward


def test_an_interval_of_one_patches_nothing(lent):
    with deep_cache(1, Branches(2), *networks(lent)) as cache:
        assert cache is None
        assert not any(
            "forward" in vars(module) for module in (lent.components.unet, lent.components.unet.up_blocks[-1])
        )


def test_features_of_a_chunk_wait_in_memory_and_those_of_all_frames_where_they_are():
    cache, features = DeepCache(2, Branches(2)), normal(4, 3, 2, 2)
    with cache.open(1, slice(4, 6), 2):
        cache.keep(cache.deep, features)
        assert cache.deep[4].data_ptr() == features.data_ptr()
        assert torch.equal(cache.kept(cache.deep, features), features)
    cache.branches.present = 1
    with cache.open(2, slice(5, 6), 1):
        assert torch.equal(cache.kept(cache.deep, features), features[3:])
    with cache.open(2, slice(5, 7), 3):
        assert cache.kept(cache.deep, features) is None


class Passes:
    """Counts the frames that go through the depths of the networks, and through their first convolutions."""

    def __init__(self, lent, branches):
        self.deep = self.all = self.controlled = 0
        unet = lent.components.unet
        with ExitStack() as hooks:
            self.watch(hooks, unet.mid_block, "deep", branches)
            self.watch(hooks, unet.conv_in, "all", branches)
            if lent.controlnet is not None:
                self.watch(hooks, lent.controlnet.mid_block, "controlled", branches)
            self.hooks = hooks.pop_all()

    def watch(self, hooks, module, name, branches):
        def count(_module, inputs):
            setattr(self, name, getattr(self, name) + len(inputs[0]) // branches)

        hooks.callback(module.register_forward_pre_hook(count).remove)


@pytest.mark.parametrize(("kind", "branches"), [("text", 2), ("edge", 2), ("edit", 3)])
@torch.inference_mode()
def test_the_depths_run_at_every_third_step_of_each_part(orders, manager, kind, branches):
    checkpoint, request = orders[kind]
    request = dataclasses.replace(request, steps=10, cache_interval=3)
    with manager.lend(checkpoint) as lent:
        passes = Passes(lent, branches)
        frames = len(result_of(sample(request, lent, manager)).latents)
        passes.hooks.close()
    alone = 1 if kind == "text" else 0  # steps of the first frame, in a part of its own
    assert passes.all == alone + 10 * frames
    assert passes.deep == alone + 4 * frames
    assert passes.controlled == (passes.deep if kind == "edge" else 0)


@torch.inference_mode()
def test_a_control_that_begins_at_a_shallow_step_is_asked_then(orders, manager):
    checkpoint, request = orders["edge"]
    request = dataclasses.replace(request, steps=6, cache_interval=6, control_start=0.4, control_end=0.9)
    assert isinstance(request, EdgeRequest)
    with manager.lend(checkpoint) as lent:
        passes = Passes(lent, 2)
        latents = result_of(sample(request, lent, manager)).latents
        passes.hooks.close()
        without = dataclasses.replace(request, control_strength=0.0)
        assert not torch.equal(latents, result_of(sample(without, lent, manager)).latents)
    assert passes.controlled == len(latents)


@pytest.mark.parametrize(("name", "share"), [("SD 1.5", 0.08), ("SDXL", 0.015)])
@torch.inference_mode()
def test_of_networks_of_full_size_a_shallow_pass_has_little_to_do(name, share):
    with torch.device("meta"):
        unet = UNet2DConditionModel(**UNETS[name]).half().eval()
        cells = unet.config.sample_size
        latents, text = torch.empty(1, 4, cells, cells), torch.empty(1, 77, unet.config.cross_attention_dim)
    counted = []
    with deep_cache(2, Branches(1), unet) as cache:
        for step in (1, 2):
            with cache.open(step, slice(0, 1), 1), FlopCounterMode(display=False) as counter:
                unet(latents.half(), 1, encoder_hidden_states=text.half())
            counted.append(counter.get_total_flops())
    assert 0.9 * share < counted[1] / counted[0] < share


def test_reused_features_change_little_where_little_changes_between_steps(pipeline, orders):
    request = dataclasses.replace(orders["text"][1], steps=50)
    whole = sampled(request, pipeline)
    far, near = (sampled(dataclasses.replace(request, cache_interval=every), pipeline) for every in (8, 2))
    assert 0 < (near - whole).square().mean() < (far - whole).square().mean()
