"""Tasks that begin with a clip, on tiny weights: from the request to the frames."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import imageio
import imageio_ffmpeg
import numpy as np
import pytest
import torch

from tests.example_files import with_a_tone
from text2video_zero.__main__ import main
from text2video_zero.errors import UserError
from text2video_zero.events import ControlMaps, Finished, Notice
from text2video_zero.generate import generate, sample, settings
from text2video_zero.generators import result_of
from text2video_zero.media.clips import probe
from text2video_zero.media.settings import read_settings
from text2video_zero.models.checkpoints import Checkpoint
from text2video_zero.requests import (
    DepthRequest,
    DreamBoothRequest,
    EdgeRequest,
    InstructPix2PixRequest,
    PoseRequest,
    Size,
)
from text2video_zero.sampling.noise import frame_noise
from text2video_zero.tasks import controlled as controlled_task
from text2video_zero.tasks import instructed
from text2video_zero.tasks.clip_input import clip_noise

CLIPS = Path(__file__).resolve().parents[2] / "assets" / "clips"
CONTROLLED = {"edge": EdgeRequest, "pose": PoseRequest, "depth": DepthRequest}


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    """Ten frames of a bright square that walks over a dark ground."""
    path = tmp_path_factory.mktemp("clips") / "square.mp4"
    writer = imageio_ffmpeg.write_frames(str(path), (96, 64), fps=8, macro_block_size=2, ffmpeg_log_level="error")
    writer.send(None)
    for number in range(10):
        frame = np.full((64, 96, 3), 30, np.uint8)
        frame[16:48, 8 + 4 * number : 40 + 4 * number] = (240, 200, 60)
        writer.send(frame)
    writer.close()
    return path


@pytest.fixture
def editor(manager, tiny_editor):
    with manager.lend(Checkpoint(str(tiny_editor), kind="instruct-pix2pix")) as lent:
        yield lent


@pytest.fixture
def controlled(manager, tiny_checkpoint, tiny_controlnets):
    with manager.lend(Checkpoint(str(tiny_checkpoint), controlnet=str(tiny_controlnets["edge"]))) as lent:
        yield lent


def order(request, clip, **changes):
    defaults = {"prompt": "a red fox", "clip": str(clip), "frames": 5, "steps": 6, "seed": 3}
    return request(**(defaults | changes))


@torch.inference_mode()
def sampled(request, pipeline, detectors=None):
    return result_of(sample(request, pipeline, detectors))


class TestInstructed:
    def test_makes_a_video_of_the_clips_shape(self, editor, clip):
        events = list(generate(order(InstructPix2PixRequest, clip), editor))
        video = events[-1].video
        assert isinstance(events[-1], Finished)
        assert video.frames.shape == (5, 64, 80, 3)
        assert any(isinstance(event, Notice) and "96x64 -> 80x64" in event.text for event in events)
        assert video.settings["request"]["size"] == "80x64"

    def test_a_videos_settings_do_not_tell_where_on_this_machine_the_clip_is(self, editor, clip, monkeypatch):
        monkeypatch.chdir(clip.parent.parent)
        below = clip.relative_to(clip.parent.parent).as_posix()
        for given, told in ((str(clip), clip.name), (below, below)):
            request = order(InstructPix2PixRequest, given)
            assert settings(request, editor)["request"]["clip"] == told

    @pytest.mark.parametrize("sampler", ["Euler ancestral", "DDIM"])
    @pytest.mark.parametrize("shared_noise", [True, False])
    @pytest.mark.parametrize("reference_frames", ["first", "first + previous"])
    def test_does_not_depend_on_the_chunk_size(self, editor, clip, sampler, shared_noise, reference_frames):
        changes = {"sampler": sampler, "shared_noise": shared_noise, "reference_frames": reference_frames}
        whole = sampled(order(InstructPix2PixRequest, clip, **changes, chunk_size=8), editor).latents
        parts = sampled(order(InstructPix2PixRequest, clip, **changes, chunk_size=3), editor).latents
        assert torch.allclose(parts, whole, atol=1e-4)

    @pytest.fixture
    def still_clip(self, tmp_path):
        picture = tmp_path / "still.mp4"
        writer = imageio_ffmpeg.write_frames(str(picture), (64, 64), fps=8, ffmpeg_log_level="error")
        writer.send(None)
        for _ in range(4):
            writer.send(np.full((64, 64, 3), 90, np.uint8))
        writer.close()
        return picture

    def test_shared_noise_keeps_equal_frames_equal(self, editor, still_clip):
        spread = {}
        for shared in (True, False):
            latents = sampled(order(InstructPix2PixRequest, still_clip, frames=4, shared_noise=shared), editor).latents
            spread[shared] = latents.std(0).mean()
        assert spread[True] < 1e-4 < spread[False]

    def test_noise_that_follows_a_still_clip_stays_where_it_is(self, editor, still_clip):
        stays, follows = (
            sampled(order(InstructPix2PixRequest, still_clip, frames=4, noise_follows=follows), editor).latents
            for follows in (False, True)
        )
        assert torch.equal(stays, follows)

    def test_noise_that_follows_a_clip_is_the_same_in_chunks_of_any_size_and_clips_of_any_length(self, editor, clip):
        whole, parts, shorter, stays = (
            sampled(order(InstructPix2PixRequest, clip, **{"noise_follows": True, **changes}), editor).latents
            for changes in ({}, {"chunk_size": 2}, {"frames": 3}, {"noise_follows": False})
        )
        assert torch.allclose(parts, whole, atol=1e-4)
        assert torch.allclose(whole[:3], shorter, atol=1e-4)
        assert torch.allclose(whole[0], stays[0], atol=1e-5)
        assert (whole[1:] - stays[1:]).abs().amax() > 1e-2

    @pytest.mark.parametrize("shared_noise", [True, False])
    def test_no_step_adds_the_noise_that_the_frames_began_with(self, editor, clip, shared_noise):
        request = order(InstructPix2PixRequest, clip, frames=2, shared_noise=shared_noise, size=Size(64, 64))
        drawn = []
        draw_noise = instructed.noise_of_step

        def overheard(*arguments, **named):
            drawn.append(draw_noise(*arguments, **named))
            return drawn[-1]

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(instructed, "noise_of_step", overheard)
            sampled(request, editor)
        assert len(drawn) == request.steps  # the start, and each step but the last
        maps = torch.stack(drawn)[:, 0].flatten(1)
        assert (torch.corrcoef(maps) - torch.eye(len(maps))).abs().max() < 0.3

    def test_motion_smoothness_keeps_the_first_frame_and_brings_the_others_near(self, editor, still_clip):
        requests = [
            order(InstructPix2PixRequest, still_clip, frames=4, shared_noise=False, motion_smoothness=smoothness)
            for smoothness in (0.0, 4.0)
        ]
        own, path = (sampled(request, editor).latents for request in requests)
        assert torch.allclose(own[0], path[0], atol=1e-5)
        jumps = [(clip[1:] - clip[:-1]).square().mean() for clip in (own, path)]
        assert jumps[1] < 0.5 * jumps[0]

    def test_without_smoothness_noise_is_drawn_for_each_frame_as_it_ever_was(self, editor, clip):
        request = order(InstructPix2PixRequest, clip, frames=3, shared_noise=False, seed=7, size=Size(64, 64))
        for draw in (0, 2):
            drawn = [frame_noise(7, frame, (4, 8, 8), "cpu", draw) for frame in range(3)]
            assert torch.equal(instructed.noise_of_step(request, editor, draw), torch.stack(drawn))

    def test_a_model_without_instructions_is_refused(self, pipeline, clip):
        with pytest.raises(UserError, match="takes no instructions"):
            list(generate(order(InstructPix2PixRequest, clip), pipeline))

    def test_the_clip_decides_the_length(self, editor, clip):
        request = sampled(order(InstructPix2PixRequest, clip, frames=100, first_frame=7), editor).request
        assert request.frames == 3


class TestTokenMerging:
    def test_works_in_the_controlnet_too_in_chunks_of_any_size(self, manager, controlled, clip):
        merged = order(EdgeRequest, clip, token_merging=0.5, control_strength=2.0)
        whole = sampled(merged, controlled, manager).latents
        assert torch.allclose(
            sampled(dataclasses.replace(merged, chunk_size=1), controlled, manager).latents, whole, atol=1e-4
        )
        count = []
        hook = controlled.controlnet.down_blocks[0].attentions[0].transformer_blocks[0].attn1.to_q
        handle = hook.register_forward_pre_hook(lambda _module, inputs: count.append(inputs[0].shape[1]))
        list(generate(merged, controlled, manager))
        handle.remove()
        assert set(count) == {8 * 10 // 2}


class TestCommandLine:
    @pytest.mark.parametrize("task", ["edge", "pose", "depth", "dreambooth"])
    def test_controlled_tasks(self, tiny_checkpoint, tiny_controlnets, clip, tmp_path, task, capsys):
        control = "edge" if task == "dreambooth" else task
        output = tmp_path / "out.mp4"
        arguments = f"{task} --clip {clip} --model {tiny_checkpoint} --controlnet {tiny_controlnets[control]}"
        arguments += f" --ready-made yes --frames 2 --steps 4 --device cpu --output {output}"
        assert main([*arguments.split(), "--prompt", "a red fox"]) == 0
        assert capsys.readouterr().out.strip() == str(output)
        assert read_settings(output)["task"] == task

    def test_instructed(self, tiny_editor, clip, tmp_path):
        output = tmp_path / "out.mp4"
        arguments = f"instruct-pix2pix --clip {clip} --model {tiny_editor} --frames 2 --steps 4 --device cpu"
        assert main([*arguments.split(), "--prompt", "make it snow", "--output", str(output)]) == 0
        assert read_settings(output)["request"]["prompt"] == "make it snow"

    def test_the_readme_s_skeleton_needs_no_detector(self, tmp_path, capsys):
        arguments = f"pose --clip {CLIPS / 'dancing-skeleton.mp4'} --frames 1 --steps 4 --device cpu"
        assert main([*arguments.split(), "--prompt", "an astronaut", "--output", str(tmp_path / "dance.mp4")]) == 0
        assert "The clip is taken as a control map." in capsys.readouterr().err

    def test_a_missing_clip_is_told_in_one_line(self, tiny_editor, capsys):
        arguments = f"instruct-pix2pix --clip nowhere.mp4 --model {tiny_editor} --device cpu --prompt snow"
        assert main(arguments.split()) == 2
        assert capsys.readouterr().err.strip().splitlines()[-1].startswith("There is no file nowhere.mp4")


class TestSound:
    @pytest.mark.parametrize("keep_sound", [True, False])
    def test_goes_with_the_video_if_it_is_wanted(self, manager, controlled, clip, tmp_path, keep_sound):
        loud = with_a_tone(clip, tmp_path)
        video = list(generate(order(EdgeRequest, loud, frames=4, keep_sound=keep_sound), controlled, manager))[-1].video
        saved = video.save(tmp_path / "video.mp4")
        assert probe(saved).has_audio is keep_sound
        assert probe(saved).frames == 4
        assert read_settings(saved)["request"]["keep_sound"] is keep_sound

    def test_begins_where_the_frames_begin(self, manager, controlled, clip, tmp_path):
        request = order(EdgeRequest, with_a_tone(clip, tmp_path), first_frame=4, frames=2, keep_sound=True)
        assert sampled(request, controlled, manager).sound.start == pytest.approx(4 / 8)

    def test_where_there_is_none_to_keep_that_is_told(self, manager, controlled, clip):
        notices = [
            event.text
            for event in generate(order(EdgeRequest, clip, keep_sound=True), controlled, manager)
            if isinstance(event, Notice)
        ]
        assert "The clip has no sound to keep." in notices
        assert any("The clip as it is used: seconds 0.0 to 0.6 of 1.2, 96x64" in text for text in notices)

    def test_files_that_can_carry_none_are_refused_before_anything_is_computed(self, tmp_path, capsys):
        clip, output = tmp_path / "a.mp4", tmp_path / "a.gif"
        clip.write_bytes(b"a clip")
        asked = ["edge", "--clip", str(clip), "--prompt", "a fox", "--keep-sound", "--output", str(output)]
        assert main(asked) == 2
        assert "a.gif cannot carry the clip's sound: save the video as .mp4" in capsys.readouterr().err


class TestControlled:
    def test_makes_a_video_in_the_shape_of_the_clip(self, manager, controlled, clip):
        events = list(generate(order(EdgeRequest, clip), controlled, manager))
        maps = np.asarray(next(event.frames for event in events if isinstance(event, ControlMaps)))
        assert events[-1].video.frames.shape == maps.shape == (5, 64, 80, 3)
        assert set(np.unique(maps)) == {0, 255}
        assert (maps[0] != maps[-1]).any()

    @pytest.mark.parametrize("reference_frames", ["first", "first + previous"])
    @pytest.mark.parametrize("cross_frame_attention", [True, False])
    def test_does_not_depend_on_the_chunk_size(
        self, manager, controlled, clip, reference_frames, cross_frame_attention
    ):
        changes = {"reference_frames": reference_frames, "cross_frame_attention": cross_frame_attention}
        whole = sampled(order(EdgeRequest, clip, **changes, chunk_size=8), controlled, manager).latents
        parts = sampled(order(EdgeRequest, clip, **changes, chunk_size=2), controlled, manager).latents
        assert torch.allclose(parts, whole, atol=1e-4)

    def test_all_frames_begin_with_one_noise_map(self, manager, controlled, tmp_path):
        still = tmp_path / "still.gif"
        imageio.mimwrite(still, np.full((3, 64, 64, 3), 200, np.uint8), duration=125)
        request = order(EdgeRequest, still, frames=3, ready_made="yes", cross_frame_attention=False)
        first, *others = sampled(request, controlled, manager).latents
        assert all(torch.allclose(other, first, atol=1e-4) for other in others)

    def test_noise_that_steps_add_follows_the_clip_too(self, manager, controlled, clip, monkeypatch):
        drawn = []

        def overheard(*arguments):
            drawn.append(clip_noise(*arguments))
            return drawn[-1]

        monkeypatch.setattr(controlled_task, "clip_noise", overheard)
        request = order(EdgeRequest, clip, sampler="LCM", guidance_scale=1.0, noise_follows=True)
        sampled(request, controlled, manager)
        assert len(drawn) == request.steps  # the start, and each step but the last
        assert all((noise[1:] != noise[:1]).any() for noise in drawn)
        assert not torch.equal(drawn[0], drawn[1])

    def test_the_quality_prompt_reaches_the_model(self, manager, controlled, clip):
        bare, added = (order(EdgeRequest, clip, quality_prompt=words) for words in ("", "walking in the snow"))
        written = dataclasses.replace(bare, prompt=f"{bare.prompt}, walking in the snow")
        latents = [sampled(request, controlled, manager).latents for request in (bare, added, written)]
        assert torch.equal(latents[1], latents[2])
        assert not torch.allclose(latents[0], latents[1], atol=1e-2)

    def test_control_takes_part_in_its_share_of_the_steps(self, manager, controlled, clip):
        strong = sampled(order(EdgeRequest, clip), controlled, manager).latents
        for changes in ({"control_strength": 0.3}, {"control_end": 0.5}, {"control_start": 0.5}):
            assert not torch.allclose(sampled(order(EdgeRequest, clip, **changes), controlled, manager).latents, strong)

    def test_leaves_no_trace_in_unet_and_controlnet(self, manager, controlled, clip):
        models = controlled.components.unet, controlled.controlnet
        before = [dict(model.attn_processors) for model in models]
        run = generate(order(EdgeRequest, clip), controlled, manager)
        for _ in range(8):
            next(run)
        run.close()
        assert [dict(model.attn_processors) for model in models] == before

    @pytest.mark.parametrize("control", ["edge", "pose", "depth"])
    def test_a_ready_made_map_is_taken_as_it_is(self, manager, tiny_checkpoint, tiny_controlnets, clip, control):
        checkpoint = Checkpoint(str(tiny_checkpoint), controlnet=str(tiny_controlnets[control]))
        with manager.lend(checkpoint) as lent:
            run = generate(order(CONTROLLED[control], clip, ready_made="yes", frames=2), lent)
            events = list(run)
        maps = np.asarray(next(event.frames for event in events if isinstance(event, ControlMaps)))
        assert maps.mean() > 20
        assert any(isinstance(event, Notice) and "control map" in event.text for event in events)

    def test_dreambooth_takes_the_control_that_is_chosen(self, controlled, clip):
        request = order(DreamBoothRequest, clip, control="depth", ready_made="yes")
        assert sampled(request, controlled).request.control == "depth"

    def test_the_second_look_comes_from_the_cache(self, manager, controlled, clip, monkeypatch):
        first = sampled(order(EdgeRequest, clip, canny_high=210), controlled, manager).latents
        monkeypatch.setattr("text2video_zero.control.control_maps.CannyMapper.seen", None)
        assert torch.equal(sampled(order(EdgeRequest, clip, canny_high=210), controlled, manager).latents, first)

    def test_a_missing_detector_is_told_in_one_sentence(self, manager, controlled, clip, monkeypatch):
        monkeypatch.setenv("HF_HUB_OFFLINE", "1")
        for request in (PoseRequest, DepthRequest):
            with pytest.raises(UserError, match=r"detector|pose|depth") as raised:
                list(generate(order(request, clip), controlled, manager))
            assert "\n" not in str(raised.value)

    def test_a_model_without_controlnet_is_refused(self, pipeline, clip):
        with pytest.raises(UserError, match="without a ControlNet"):
            list(generate(order(EdgeRequest, clip), pipeline))
