"""Prompts of any length and kind: what fits one chunk is as it was, what does not is not lost."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from safetensors.torch import save_file

from tests.lending import take
from tests.runs import sampled
from tests.tiny_models import write_lora
from text2video_zero import job
from text2video_zero.errors import UserError
from text2video_zero.events import Notice
from text2video_zero.foreground.attention_maps import CrossAttentionDetector
from text2video_zero.generate import run_job, sample
from text2video_zero.job import Job, Settings, build_job
from text2video_zero.models.adapters import read_adapter
from text2video_zero.models.additions.textual_inversion import Inversions
from text2video_zero.models.checkpoints import Adapter, Checkpoint
from text2video_zero.prompts.chunks import chunks_of, room_of
from text2video_zero.prompts.counting import token_count, tokenizer_in
from text2video_zero.prompts.encoding import encoded_alike, encoded_prompts, encoded_texts
from text2video_zero.prompts.loras import tagged_adapters, what_was_left_out
from text2video_zero.prompts.syntax import read_prompt
from text2video_zero.requests import EdgeRequest, Size, TextToVideoRequest

WORDS = "a red panda dancing in the snow on the moon"
LONG = ", ".join(["a red fox", "a blue robot walking", "the snow", "a panda on the moon", "the red snow"] * 2)
ORDER = TextToVideoRequest(prompt=WORDS, frames=2, steps=4, seed=5, size=Size(64, 64))
WINDOW = 16  # of the tiny tokenizer


@pytest.fixture
def components(pipeline):
    return pipeline.components


@pytest.fixture
def xl(manager, tiny_xl):
    return take(manager, Checkpoint(str(tiny_xl))).components


@torch.inference_mode()
def notes_of(events):
    return [event.text for event in events if isinstance(event, Notice)]


def as_diffusers_has_it(components, prompt, negative):
    """diffusers' own, called as its pipelines call it; the negative prompt before the prompt."""
    made = components.encode_prompt(
        prompt=prompt,
        negative_prompt=negative or None,
        device="cpu",
        num_images_per_prompt=1,
        do_classifier_free_guidance=negative is not None,
    )
    pairs = zip(made[::2], made[1::2], strict=True)
    return [positive if other is None else torch.cat([other, positive]) for positive, other in pairs]


@pytest.mark.parametrize("negative", ["", "the moon", None])
@pytest.mark.parametrize(
    ("prompt", "text"), [(WORDS, WORDS), ("a fox :) 16:9", "a fox :) 16:9"), ("a fox \\(red\\)", "a fox (red)")]
)
def test_a_plain_prompt_is_encoded_as_ever_bit_for_bit(components, xl, prompt, text, negative):
    for model in (components, xl):
        ours, theirs = encoded_texts(model, prompt, negative), as_diffusers_has_it(model, text, negative)
        assert all(torch.equal(mine, other) for mine, other in zip(ours, theirs, strict=True))


def test_one_chunk_by_our_own_way_is_diffusers_too(components, xl):
    """A weight of 1 in brackets goes the long way, to the same place."""
    for model in (components, xl):
        ours = encoded_texts(model, f"({WORDS}:1.0000001)", "")
        theirs = as_diffusers_has_it(model, WORDS, "")
        for mine, other in zip(ours, theirs, strict=True):
            assert torch.allclose(mine, other, atol=1e-4)


class TestLength:
    def test_nothing_of_a_long_prompt_is_lost(self, components, xl):
        chunks = chunks_of(read_prompt(LONG), components.tokenizer)
        assert len(chunks) > 2
        whole = components.tokenizer(LONG, add_special_tokens=False).input_ids
        assert [token.number for chunk in chunks for token in chunk] == whole
        assert all(len(chunk) <= room_of(components.tokenizer) for chunk in chunks)
        for model in (components, xl):
            embeddings = encoded_prompts(model, LONG, "")
            assert embeddings.shape[:2] == (2, len(chunks) * WINDOW)
            assert embeddings.isfinite().all()

    def test_its_first_chunk_is_what_it_is_alone(self, components):
        first, *_ = chunks_of(read_prompt(LONG), components.tokenizer)
        alone = LONG[: first[-1].end]
        long, short = encoded_prompts(components, LONG, None), encoded_prompts(components, alone, None)
        assert torch.allclose(long[:, :WINDOW], short, atol=1e-5)

    def test_chunks_end_behind_commas_or_between_words(self, components):
        chunks = chunks_of(read_prompt(LONG), components.tokenizer)
        assert all(LONG[chunk[-1].begin : chunk[-1].end] == "," for chunk in chunks[:-1])
        unbroken = "redredredred " * 6
        for chunk in chunks_of(read_prompt(unbroken), components.tokenizer)[:-1]:
            assert unbroken[chunk[-1].end] == " "
        assert len(chunks_of(read_prompt("x" * 100), components.tokenizer)) == 8  # one word, letter by letter

    def test_what_stands_at_the_end_still_counts(self, pipeline):
        """As the style's trigger words and the quality prompt do."""
        whole, cut = (sampled(replace(ORDER, prompt=LONG + end), pipeline) for end in (", sks style", ""))
        assert not torch.allclose(whole, cut, atol=1e-4)

    def test_a_long_negative_prompt_goes_with_a_short_prompt(self, components, xl):
        for model in (components, xl):
            embeddings = encoded_prompts(model, "a red fox", LONG)
            assert embeddings.shape[1] % WINDOW == 0
            assert torch.allclose(embeddings[1, :WINDOW], encoded_prompts(model, "a red fox", "")[1], atol=1e-5)

    def test_blank_stays_zeros_for_xl(self, xl):
        for negative, positive in encoded_texts(xl, LONG, ""):
            assert positive.any()
            assert not negative.any()

    def test_a_whole_video_of_each_family_is_made(self, manager, tiny_xl, pipeline):
        for model in (pipeline, take(manager, Checkpoint(str(tiny_xl)))):
            assert sampled(replace(ORDER, prompt=LONG, negative_prompt="the moon"), model).isfinite().all()

    def test_the_count_is_what_is_encoded(self, components, tiny_checkpoint):
        for prompt in (WORDS, LONG, "", "(red:1.4) fox BREAK snow", "<lora:ink:0.8>a fox"):
            count = token_count(prompt, components.tokenizer)
            assert count.room == WINDOW - 2
            assert encoded_prompts(components, prompt or "a", None).shape[1] == count.chunks * WINDOW
        assert token_count("a red fox", components.tokenizer).tokens == 3
        for prompt in (WORDS, LONG):
            assert token_count(prompt, tokenizer_in(tiny_checkpoint)) == token_count(prompt, components.tokenizer)
        assert tokenizer_in(tiny_checkpoint / "unet") is None
        assert token_count("<lora:ink:0.8>a (red:1.4) fox", components.tokenizer).tokens == 3


class TestWeights:
    def test_more_and_less_are_on_either_side_of_one(self, components):
        plain = encoded_prompts(components, "a red fox", None)
        nothing = encoded_prompts(components, "", None)
        for weight in (0.0, 0.5, 1.4):
            weighed = encoded_prompts(components, f"a (red:{weight}) fox", None)
            expected = plain.clone()
            expected[0, 2] = nothing[0, 2] + weight * (plain[0, 2] - nothing[0, 2])
            assert torch.allclose(weighed, expected, atol=1e-5)

    def test_a_break_begins_a_chunk(self, components):
        both = encoded_prompts(components, "a red fox BREAK in the snow", None)
        apart = [encoded_prompts(components, text, None) for text in ("a red fox", "in the snow")]
        assert torch.allclose(both, torch.cat(apart, dim=1), atol=1e-5)

    def test_xl_has_them_too(self, xl):
        plain, weighed = (encoded_prompts(xl, prompt, None) for prompt in ("a red fox", "a (red:1.4) fox"))
        assert torch.allclose(plain[0, :2], weighed[0, :2], atol=1e-6)
        assert not torch.allclose(plain[0, 2], weighed[0, 2], atol=1e-3)
        assert torch.allclose(plain[0, 3:], weighed[0, 3:], atol=1e-6)


def test_a_storyboard_turns_a_short_prompt_into_a_long_one(pipeline):
    short, long = encoded_alike(pipeline.components, ["a red fox", LONG], "")
    assert short.shape == long.shape
    assert torch.allclose(short[:, :WINDOW], encoded_prompts(pipeline.components, "a red fox", ""), atol=1e-5)
    request = replace(ORDER, prompt="a red fox", storyboard=f"1: {LONG}")
    assert sampled(request, pipeline).isfinite().all()


class TestForeground:
    def groups(self, pipeline, prompt, words=""):
        return CrossAttentionDetector(pipeline, prompt, words, frames=2, branches=2).groups

    def test_words_are_found_in_any_chunk_and_under_any_weight(self, pipeline):
        assert self.groups(pipeline, "a red fox", "fox") == [[3]]
        assert self.groups(pipeline, "a red fox") == [[3], [4]]
        assert self.groups(pipeline, "<lora:ink:1>a (red fox:1.3)", "fox") == [[3]]
        assert self.groups(pipeline, "in the snow BREAK a red fox", "fox") == [[WINDOW + 3]]
        last = self.groups(pipeline, f"{LONG}, robot", "robot")[0][-1]
        assert last > 2 * WINDOW

    def test_a_weight_is_no_word(self, pipeline):
        assert self.groups(pipeline, "(panda:1.4)")[0] == [1]

    def test_smoothing_runs_on_a_long_prompt(self, pipeline):
        request = replace(ORDER, prompt=LONG, smooth_background=True, foreground_words="fox")
        assert sampled(request, pipeline).isfinite().all()


class TestLoras:
    @pytest.fixture
    def folder(self, tiny_checkpoint, tmp_path, monkeypatch):
        folder = tmp_path / "models"
        write_lora(folder / "ink.safetensors", tiny_checkpoint)
        monkeypatch.setattr(job, "tagged_adapters", lambda prompts, given: tagged_adapters(prompts, given, folder))
        return folder

    def test_one_in_models_is_added_once(self, folder):
        ink = Adapter(str(folder / "ink.safetensors"), 0.8)
        for prompt in ("a fox <lora:ink:0.8>", "a <lora:ink.safetensors:0.8> fox <lora:none:1>"):
            built = build_job("text-to-video", {"prompt": prompt})
            assert built.checkpoint.adapters[-1] == ink
            assert built.request.prompt == prompt  # so that its settings make it again
        assert tagged_adapters(["<lora:ink:0.8>"], [read_adapter("ink:0.2", folder)], folder) == ()
        with pytest.raises(UserError, match="The weight 'much' of the LoRA 'ink' is no number"):
            build_job("text-to-video", {"prompt": "a fox <lora:ink:much>"})

    def test_a_shared_page_takes_none(self, folder):
        assert folder.is_dir()
        built = build_job("text-to-video", {"prompt": "a fox <lora:ink:0.8>"}, lora_tags=False)
        assert not any(adapter.source.endswith("ink.safetensors") for adapter in built.checkpoint.adapters)

    def test_its_tag_says_nothing_to_the_model(self, folder, pipeline):
        tagged = replace(ORDER, prompt=f"{WORDS}<lora:ink:0.8>")
        assert folder.is_dir()
        assert torch.equal(sampled(tagged, pipeline), sampled(ORDER, pipeline))

    def test_what_is_not_honoured_is_one_note(self, pipeline):
        request = replace(ORDER, prompt="a [cat|dog] <lora:ink:0.8> <hypernet:x:1>", negative_prompt="<lora:bad:1>")
        notes = [note for note in notes_of(sample(request, pipeline)) if note.startswith("Ignored")]
        (note,) = notes
        assert note == (
            "Ignored in the prompt: <lora:ink:0.8>, <lora:bad:1> (no LoRA of that name in models/, or not named "
            "in the prompt itself); [cat|dog], <hypernet:x:1> (not known here; of a choice the first counts)."
        )
        assert not [note for note in notes_of(sample(ORDER, pipeline)) if note.startswith("Ignored")]
        assert what_was_left_out(["<lora:ink:1>"], [Adapter("/models/ink.safetensors")]) == ""

    def test_storyboards_and_quality_prompts_name_some_too_and_negative_prompts_none(self, folder):
        tag = "<lora:ink:0.8>"
        for task, given in (
            ("text-to-video", {"storyboard": f"4: a cat {tag}"}),
            ("edge", {"quality_prompt": f"best {tag}", "clip": "a.mp4"}),
        ):
            built = build_job(task, {"prompt": "a fox", **given})
            assert built.checkpoint.adapters[-1] == Adapter(str(folder / "ink.safetensors"), 0.8)
        assert not build_job("text-to-video", {"prompt": "a fox", "negative_prompt": tag}).checkpoint.adapters

    def test_another_weight_than_that_of_the_run_is_told(self):
        assert what_was_left_out(["<lora:ink:0.3>"], [Adapter("ink.safetensors", 0.8)]) == (
            "Ignored in the prompt: <lora:ink:0.3> (its weight is 0.8 in this run)."
        )

    def test_what_the_prompt_names_is_no_more_than_the_prompt_says_when_settings_come_again(
        self, folder, manager, tiny_checkpoint, tmp_path
    ):
        write_lora(folder / "oil.safetensors", tiny_checkpoint)
        given = {"prompt": "a fox <lora:ink:0.8>", "frames": 1, "steps": 4, "seed": 1}
        made = build_job(
            "text-to-video", given, model=str(tiny_checkpoint), loras=[f"{folder / 'oil.safetensors'}:0.5"]
        )
        video = list(run_job(made, manager))[-1].video
        assert video.settings["loras"] == ["oil:0.5"]
        assert video.settings["prompt_loras"] == ["ink:0.8"]
        settings = replace(
            Settings.read(video.save(tmp_path / "fox.mp4"), "text-to-video"),
            model=str(tiny_checkpoint),
            loras=(),
            prompt_loras=[f"{folder / 'ink.safetensors'}:0.8"],
        )
        for prompt, weights in ((given["prompt"], [0.8]), ("a fox <lora:ink:0.3>", [0.3]), ("a fox", [])):
            again = build_job("text-to-video", {"prompt": prompt}, settings=settings)
            assert [adapter.weight for adapter in again.checkpoint.adapters] == weights
        proof = build_job("text-to-video", {}, settings=settings, lora_tags=False)
        assert [adapter.weight for adapter in proof.checkpoint.adapters] == [0.8]

    def test_the_whole_way(self, folder, manager, tiny_checkpoint):
        request = replace(ORDER, prompt=f"{WORDS} <lora:ink:0.8>")
        adapters = tagged_adapters([request.prompt], (), folder)
        events = run_job(Job(request, Checkpoint(str(tiny_checkpoint), adapters=adapters)), manager)
        assert not [note for note in notes_of(events) if note.startswith("Ignored")]


def test_a_textual_inversion_in_a_long_prompt_has_its_places(pipeline, tmp_path):
    save_file({"emb_params": torch.ones(3, 16)}, tmp_path / "ink.safetensors")
    inversions = Inversions(tmp_path)
    prompt = f"{LONG}, (ink:1.2)"
    named = inversions.named_in(prompt)
    chunks = chunks_of(read_prompt(prompt), pipeline.components.tokenizer, named, width=16)
    tokens = [token for chunk in chunks for token in chunk if token.embedding is not None]
    assert len(tokens) == 3
    assert {token.weight for token in tokens} == {1.2}
    assert encoded_prompts(pipeline.components, prompt, "", inversions).isfinite().all()


def test_the_quality_prompt_is_behind_the_prompt(pipeline):
    request = EdgeRequest(prompt=LONG, clip="a.mp4", quality_prompt="sks style")
    chunks = chunks_of(read_prompt(request.full_prompt), pipeline.components.tokenizer)
    text = read_prompt(request.full_prompt).text
    assert text[chunks[-1][-1].begin : chunks[-1][-1].end] in "style"
