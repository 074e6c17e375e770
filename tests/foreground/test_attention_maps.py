"""The foreground by attention: what is recorded, what is left as it was, what is refused."""

from __future__ import annotations

import itertools

import pytest
import torch
from diffusers import UNet2DConditionModel
from diffusers.models.attention_processor import Attention, AttnProcessor
from torch.nn import functional

from text2video_zero.attention.branches import Branches
from text2video_zero.attention.cross_frame import cross_frame_attention
from text2video_zero.errors import UserError
from text2video_zero.events import Notice
from text2video_zero.foreground.attention_maps import (
    CrossAttentionDetector,
    RecordingProcessor,
    recorded_layers,
    refined_by_affinity,
)
from text2video_zero.prompts.encoding import encoded_prompts
from text2video_zero.requests import TextToVideoRequest
from text2video_zero.sampling.guidance import TextGuidance
from text2video_zero.sampling.kept_steps import KeptSteps
from text2video_zero.tasks.text_to_video import sample_text_to_video

PROMPT = "a red panda dancing in the snow"
FRAMES = 5


@pytest.fixture
def latents():
    return torch.randn(FRAMES, 4, 8, 8, generator=torch.Generator().manual_seed(0))


def detector(pipeline, *, prompt=PROMPT, words="", frames=FRAMES, branches=2):
    return CrossAttentionDetector(pipeline, prompt, words, frames, Branches(branches))


def guidance(pipeline, *, branches=2):
    components = pipeline.components
    embeddings = encoded_prompts(components, PROMPT, "blue" if branches == 2 else None)
    return TextGuidance(components.unet, embeddings, 7.5, Branches(branches))


@torch.inference_mode()
def predicted(predict_noise, latents, *, chunks=(FRAMES,)):
    """Noise at one timestep, all frames in the given chunks."""
    pieces, begin = [], 0
    for count in chunks:
        frames = slice(begin, begin + count)
        pieces.append(predict_noise(latents[frames], 500.0, frames))
        begin += count
    return torch.cat(pieces)


def recorded(pipeline, latents, *, branches=2, chunks=(FRAMES,), steps=1):
    found = detector(pipeline, branches=branches)
    with found.observing():
        for _ in range(steps):
            predicted(guidance(pipeline, branches=branches), latents, chunks=chunks)
    return found.attention_map(*latents.shape[-2:])


class TestRecord:
    def test_positions_are_those_of_the_foreground_words_and_of_the_end(self, pipeline):
        tokenizer = pipeline.components.tokenizer
        encoded = tokenizer(PROMPT).input_ids

        def texts(found):
            return [[tokenizer.decode(encoded[index]).strip() for index in group] for group in found.groups]

        assert texts(detector(pipeline)) == [["panda"], [tokenizer.eos_token]]
        assert texts(detector(pipeline, words="snow red")) == [["red", "snow"]]

    def test_it_is_the_attention_by_definition(self, pipeline, latents):
        """Against diffusers' own attention scores, layer by layer."""
        unet = pipeline.components.unet
        found = detector(pipeline)
        expected = {}

        class Plain(AttnProcessor):
            def __init__(self, name):
                super().__init__()
                self.name = name

            def __call__(self, attn, hidden_states, encoder_hidden_states=None, attention_mask=None):
                query, key = (
                    attn.head_to_batch_dim(tensor)
                    for tensor in (attn.to_q(hidden_states), attn.to_k(encoder_hidden_states))
                )
                scores = attn.get_attention_scores(query, key).unflatten(0, (2, FRAMES, attn.heads))
                for number, tokens in enumerate(found.groups):
                    expected[f"{self.name} {number}"] = scores[1].mean(1)[..., tokens].sum(-1)
                return super().__call__(attn, hidden_states, encoder_hidden_states, attention_mask)

        original = dict(unet.attn_processors)
        unet.set_attn_processor(original | {name: Plain(name) for name in recorded_layers(unet)})
        predicted(guidance(pipeline), latents)
        unet.set_attn_processor(original)
        with found.observing():
            predicted(guidance(pipeline), latents)
        assert found._maps.keys() == expected.keys()
        assert all(torch.allclose(found._maps[name], attention, atol=1e-6) for name, attention in expected.items())

    @pytest.mark.parametrize("chunks", [(1, 4), (1, 1, 1, 1, 1), (1, 2, 2)])
    def test_it_does_not_depend_on_the_chunks(self, pipeline, latents, chunks):
        whole = recorded(pipeline, latents, steps=2)
        assert torch.allclose(recorded(pipeline, latents, chunks=chunks, steps=2), whole, atol=1e-4)

    def test_a_single_branch_is_recorded_like_the_branch_of_the_prompt(self, pipeline, latents):
        assert torch.allclose(recorded(pipeline, latents, branches=1), recorded(pipeline, latents), atol=1e-4)

    def test_later_steps_count_more(self, pipeline, latents):
        found = detector(pipeline)
        with found.observing():
            for _ in range(3):
                predicted(guidance(pipeline), latents)
        three_steps = dict(found._maps)
        with found.observing():
            predicted(guidance(pipeline), latents)
        assert all(torch.allclose(three_steps[name], 6 * attention) for name, attention in found._maps.items())

    @pytest.mark.parametrize("size", [(8, 16), (9, 14), (11, 7), (24, 40)])
    def test_any_size_of_latents(self, pipeline, size):
        attention = recorded(pipeline, torch.randn(FRAMES, 4, *size))
        assert attention.shape == (FRAMES, *size)
        assert attention.isfinite().all()
        assert torch.equal(attention.amax((1, 2)), torch.ones(FRAMES))

    def test_what_is_kept_does_not_grow_with_steps(self, pipeline, latents):
        found = detector(pipeline)
        with found.observing():
            for _ in range(3):
                predicted(guidance(pipeline), latents)
        assert all(attention.shape[0] == FRAMES and attention.ndim == 2 for attention in found._maps.values())
        assert sum(attention.shape[1] for attention in found._maps.values()) <= 64 * len(
            pipeline.components.unet.attn_processors
        )

    def test_an_earlier_run_is_forgotten(self, pipeline, latents):
        found = detector(pipeline)
        with found.observing():
            predicted(guidance(pipeline), torch.randn(FRAMES, 4, 8, 8)[:3], chunks=(3,))  # stopped in mid-step
        with found.observing():
            predicted(guidance(pipeline), latents)
        assert torch.equal(found.attention_map(8, 8), recorded(pipeline, latents))

    @pytest.mark.parametrize("layer", ["up_blocks.0", "up_blocks.1.resnets.1", "conv_out"])
    def test_a_chunk_that_fails_half_way_is_recorded_once(self, pipeline, latents, layer):
        usual = recorded(pipeline, latents, steps=2)
        found = detector(pipeline)

        def fail(_module, _inputs):
            raise torch.OutOfMemoryError("injected")

        with torch.inference_mode(), found.observing() as around_chunk:
            predicted(guidance(pipeline), latents)
            hook = pipeline.components.unet.get_submodule(layer).register_forward_pre_hook(fail)
            with pytest.raises(torch.OutOfMemoryError), around_chunk(slice(0, FRAMES)):
                predicted(guidance(pipeline), latents)
            hook.remove()
            with around_chunk(slice(0, FRAMES)):
                predicted(guidance(pipeline), latents)
        assert torch.equal(found.attention_map(8, 8), usual)

    def test_half_precision_does_not_overflow(self, pipeline):
        torch.manual_seed(0)
        attn = Attention(query_dim=32, cross_attention_dim=16, heads=2, dim_head=16).half()
        for weight in (attn.to_q.weight, attn.to_k.weight):
            weight.data.mul_(400)
        pixels, text = torch.randn(2, 64, 32).half(), torch.randn(2, 8, 16).half()
        assert attn.to_q(pixels).isfinite().all()
        assert not (attn.to_q(pixels) @ attn.to_k(text).transpose(1, 2)).isfinite().all()
        processor = RecordingProcessor(AttnProcessor(), "layer", detector(pipeline))
        attention = processor._attention(attn, pixels, text)
        assert attention.isfinite().all()
        assert attention.dtype == torch.float32


class TestTraces:
    def test_layers_return_the_same_bit_for_bit(self, pipeline, latents):
        unet = pipeline.components.unet
        clean = predicted(guidance(pipeline), latents)
        with detector(pipeline).observing():
            assert torch.equal(predicted(guidance(pipeline), latents), clean)
        with cross_frame_attention(unet, branches=Branches(2)) as memory:
            clean = self.anchor_first(pipeline, memory, latents)
            with detector(pipeline).observing():
                assert torch.equal(self.anchor_first(pipeline, memory, latents), clean)

    @torch.inference_mode()
    def anchor_first(self, pipeline, memory, latents):
        predict_noise = guidance(pipeline)
        with memory.anchor_pass():
            anchor = predict_noise(latents[:1], 500.0, slice(0, 1))
        return torch.cat([anchor, predict_noise(latents[1:], 500.0, slice(1, FRAMES))])

    def test_only_text_attention_is_recorded(self, pipeline):
        unet = pipeline.components.unet
        before = dict(unet.attn_processors)
        with detector(pipeline).observing():
            changed = {name for name, found in unet.attn_processors.items() if found is not before[name]}
        assert changed == {name for name in before if name.endswith("attn2.processor") and name.startswith("up_")}

    def test_models_for_large_pictures_go_without_their_finest_level(self, pipeline):
        unet = pipeline.components.unet
        assert any(name.startswith("up_blocks.1.") for name in recorded_layers(unet))
        large = UNet2DConditionModel.from_config(unet.config, sample_size=64)
        assert {name.split(".")[1] for name in recorded_layers(large)} == {"0"}

    @pytest.mark.parametrize("error", [None, RuntimeError, GeneratorExit, KeyboardInterrupt])
    def test_leaving_restores_the_processors(self, pipeline, latents, error):
        unet = pipeline.components.unet
        before = dict(unet.attn_processors)
        try:
            with detector(pipeline).observing():
                predicted(guidance(pipeline), latents)
                if error:
                    raise error
        except (RuntimeError, GeneratorExit, KeyboardInterrupt) as raised:
            assert type(raised) is error  # noqa: PT017 - two of them are no Exceptions
        assert all(unet.attn_processors[name] is processor for name, processor in before.items())


def pictured(truth):
    """Latents (f, 4, h, w) of a picture in which the foreground looks unlike the rest."""
    shades = torch.tensor([2.0, -1.0, 1.0, 0.5])[:, None, None]
    return (2 * truth[:, None] - 1) * shades


class TestMasks:
    def planted(self, pipeline, attention, latents):
        """Masks by a detector that has recorded these maps (f, h, w) in one layer."""
        found = detector(pipeline, frames=len(attention))
        found.record("layer", attention.flatten(1))
        return found.masks(latents)

    @pytest.fixture
    def truth(self):
        truth = torch.zeros(3, 16, 24)
        for frame in range(3):
            truth[frame, 3:9, 4 + frame : 11 + frame] = 1
        return truth

    def test_what_stands_out_is_the_foreground(self, pipeline, truth):
        noise = 0.05 * torch.rand(truth.shape, generator=torch.Generator().manual_seed(0))
        masks = self.planted(pipeline, 0.1 + 0.3 * truth + noise, pictured(truth))
        assert masks.dtype == torch.float32
        assert torch.equal(masks, truth)

    def test_blurred_attention_with_holes_takes_the_edges_of_the_picture(self, pipeline, truth):
        attention = functional.avg_pool2d(truth, 5, stride=1, padding=2)
        attention[:, 5:7, 7:9] = 0
        assert torch.equal(self.planted(pipeline, attention, pictured(truth)), truth)

    def test_large_grids_are_compared_in_blocks(self, pipeline):
        truth = torch.zeros(1, 64, 96)
        truth[0, 16:40, 16:56] = 1
        masks = self.planted(pipeline, 0.1 + truth, pictured(truth))
        assert (masks == truth).float().mean() > 0.97

    @pytest.mark.parametrize("size", [(64, 96), (67, 33), (33, 67)])
    def test_any_size_is_refined_within_its_bounds(self, size):
        attention = torch.rand(2, *size, generator=torch.Generator().manual_seed(0))
        refined = refined_by_affinity(attention, torch.zeros(2, 4, *size))
        assert refined.shape == attention.shape
        assert 0 < refined.amin() < refined.amax() < 1

    def test_coarse_layers_are_brought_to_the_grid(self, pipeline):
        found = detector(pipeline, frames=1)
        attention = torch.zeros(1, 9, 8)
        attention[0, :5, :4] = 1
        found.record("layer", attention.flatten(1))
        mask = found.attention_map(17, 15)[0] > 0.5
        assert mask[:8, :6].all()
        assert not mask[11:].any()

    def test_too_coarse_layers_are_left_out_where_finer_ones_are(self, pipeline):
        fine = torch.zeros(1, 8, 8)
        fine[0, 2:5, 2:5] = 1
        found = detector(pipeline, frames=1)
        found.record("fine", fine.flatten(1))
        found.record("coarse", torch.tensor([[0.0, 0.0, 0.0, 9.0]]))
        assert torch.equal(found.attention_map(8, 8), fine)

    def test_attention_without_form_is_no_foreground(self, pipeline):
        latents = torch.randn(2, 4, 8, 8)
        assert not self.planted(pipeline, torch.full((2, 8, 8), 0.3), latents).any()
        nowhere = torch.full((2, 8, 8), float("nan"))
        assert self.planted(pipeline, nowhere, latents).isfinite().all()
        assert self.planted(pipeline, torch.rand(2, 8, 8), latents * float("nan")).isfinite().all()

    def test_a_layer_that_is_no_halving_is_a_bug(self, pipeline):
        found = detector(pipeline, frames=1)
        found.record("layer", torch.ones(1, 77))
        with pytest.raises(ValueError, match="77 cells"):
            found.attention_map(8, 16)


def told_before_the_first_step(request, pipeline):
    return list(
        itertools.takewhile(
            lambda event: isinstance(event, Notice), sample_text_to_video(request, pipeline, KeptSteps())
        )
    )


class TestWords:
    def test_words_behind_the_first_chunk_of_a_long_prompt_are_found(self, pipeline):
        length = pipeline.components.tokenizer.model_max_length
        (places,) = detector(pipeline, prompt="very " * length + "red panda", words="panda").groups
        assert min(places) > length

    @pytest.mark.parametrize("prompt", ["красная панда", "パンダ", "ein Pandabär im Schnee", "Ａ pańda", "🐼", "…"])
    def test_any_language_gives_positions(self, pipeline, prompt):
        assert all(detector(pipeline, prompt=prompt).groups)

    def test_they_are_refused_before_the_first_step(self, pipeline):
        request = TextToVideoRequest(prompt=PROMPT, smooth_background=True, foreground_words="hippopotamus")
        with pytest.raises(UserError, match="hippopotamus"):
            told_before_the_first_step(request, pipeline)
