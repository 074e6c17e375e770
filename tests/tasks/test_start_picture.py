"""A picture of the person's own as the first frame, on tiny weights: page, command line and API take the same."""

from __future__ import annotations

import json
import math

import httpx
import numpy as np
import pytest
import torch
from gradio_client import Client, handle_file
from PIL import Image

from serving.estimates import evaluations
from tests.example_files import write_clip
from tests.media.clip_files import bare_png
from tests.runs import sampled
from tests.served import served
from text2video_zero.__main__ import main
from text2video_zero.errors import UserError
from text2video_zero.events import Finished, Notice, Progress
from text2video_zero.generate import generate, run_job
from text2video_zero.generators import result_of
from text2video_zero.job import Job, Settings, build_job
from text2video_zero.media.clips import file_hash
from text2video_zero.media.settings import read_settings
from text2video_zero.models.checkpoints import Checkpoint
from text2video_zero.requests import EdgeRequest, Size, TextToVideoRequest
from text2video_zero.sampling.decoding import encoded_frame
from text2video_zero.sampling.kept_steps import KeptSteps
from text2video_zero.sampling.motion.warp import forward_noise
from text2video_zero.sampling.noise import frame_noise
from text2video_zero.tasks.start_picture import start_latents
from text2video_zero.tasks.text_to_video import ClipRun, motion_plan, text_guidance

SHAPE = (4, 8, 8)
PAPER = {"motion_smoothness": 0.0, "resampling": "nearest", "pan_x": 1 / 8, "pan_y": 0.0, "reach": 1.0}


@pytest.fixture(scope="module")
def picture(tmp_path_factory):
    """A square photo of 64x64 with a bright corner."""
    colours = np.full((64, 64, 3), 40, np.uint8)
    colours[:24, :24] = (250, 120, 30)
    path = tmp_path_factory.mktemp("pictures") / "me at home.png"
    Image.fromarray(colours).save(path)
    return path


def order(picture, **changes):
    defaults = {"prompt": "a red fox", "frames": 4, "steps": 10, "seed": 7, "start_picture": str(picture)}
    return TextToVideoRequest(**(defaults | changes))


@torch.inference_mode()
def start_of(request, pipeline):
    """The plan of a run, the x_0 of its picture, and the latents from which all frames go together."""
    request, clean = result_of(start_latents(request, pipeline))
    plan = motion_plan(request, pipeline)
    run = ClipRun(request, pipeline, plan, text_guidance(request, pipeline, plan), None, None, KeptSteps(), clean)
    return plan, clean, result_of(run.start())


class TestStart:
    @pytest.mark.parametrize("sampler", ["DDIM", "DPM++ 2M", "LCM"])
    @pytest.mark.parametrize("strength", [0.2, 0.6, 1.0])
    def test_the_picture_with_the_first_frame_s_noise_is_what_all_frames_depart_from_at_t_prime(
        self, pipeline, picture, sampler, strength
    ):
        plan, clean, start = start_of(order(picture, start_strength=strength, sampler=sampler, **PAPER), pipeline)
        alpha_to, alpha_from = (plan.opening.alphas[step] for step in (plan.at_to, plan.at_from))
        noise = frame_noise(7, 0, SHAPE, "cpu")
        at_from = math.sqrt(alpha_from) * clean + math.sqrt(1 - alpha_from) * noise
        torch.testing.assert_close(start[0], math.sqrt(alpha_to) * clean + math.sqrt(1 - alpha_to) * noise)
        moved = torch.cat([at_from[..., 1:], at_from[..., -1:]], -1)  # by one cell; what lies outside is mirrored
        own = forward_noise(moved, frame_noise(7, 1, SHAPE, "cpu"), alpha_from, alpha_to)
        torch.testing.assert_close(start[1], own)

    def test_x_0_is_the_picture_as_the_vae_has_it(self, pipeline, picture):
        _, clean = result_of(start_latents(order(picture), pipeline))
        vae = pipeline.components.vae
        expected = encoded_frame(vae, np.array(Image.open(picture))) * vae.config.scaling_factor
        assert torch.equal(clean, expected)

    @pytest.mark.parametrize(("strength", "step"), [(1.0, 0), (0.6, 3), (0.3, 6), (0.1, 8)])
    def test_the_strength_says_at_which_share_of_the_timesteps_it_begins(self, pipeline, picture, strength, step):
        """Timesteps 901, 801, …, 1; the last leaves room for T' below T."""
        plan = motion_plan(order(picture, start_strength=strength), pipeline)
        assert (plan.begin, plan.at_to) == (step, step)
        assert plan.at_from > step

    def test_t_prime_stays_as_far_below_t_as_the_fields_have_it(self, pipeline, picture):
        request = order(picture, start_strength=0.6, steps=100, motion_from=400, motion_to=600)
        plan = motion_plan(request, pipeline)
        timesteps = plan.opening.timesteps
        assert timesteps[plan.at_to] - timesteps[plan.at_from] == 200

    def test_without_motion_each_frame_is_the_picture_with_noise_of_its_own(self, pipeline, picture):
        plan, clean, start = start_of(order(picture, motion=False, motion_smoothness=0.0), pipeline)
        alpha = plan.joint.alphas[plan.begin]
        noise = torch.stack([frame_noise(7, frame, SHAPE, "cpu") for frame in range(4)])
        torch.testing.assert_close(start, math.sqrt(alpha) * clean + math.sqrt(1 - alpha) * noise)


class TestRun:
    def test_without_a_picture_the_strength_changes_nothing(self, pipeline):
        plain = sampled(order(""), pipeline)
        assert torch.equal(sampled(order("", start_strength=0.1), pipeline), plain)

    @pytest.mark.parametrize("changes", [{}, {"motion": False}, {"smooth_background": True}, {"loop": True}])
    def test_neither_the_chunk_size_nor_the_length_matters(self, pipeline, picture, changes):
        words = {"foreground_words": "fox", **changes}
        whole = sampled(order(picture, **words), pipeline)
        assert torch.allclose(sampled(order(picture, **words, chunk_size=1), pipeline), whole, atol=1e-4)
        if not changes.keys() & {"loop", "smooth_background"}:
            assert torch.allclose(sampled(order(picture, **words, frames=2), pipeline), whole[:2], atol=1e-4)

    def test_the_less_is_drawn_anew_the_nearer_the_first_frame_is_to_the_picture(self, pipeline, picture):
        _, clean = result_of(start_latents(order(picture), pipeline))
        distances = [
            (sampled(order(picture, start_strength=strength), pipeline)[0] - clean).square().mean()
            for strength in (0.1, 0.4, 0.9)
        ]
        assert distances == sorted(distances)
        assert distances[0] < distances[-1] / 2

    def test_guidance_ends_at_its_share_of_the_steps_that_are_left(self, pipeline, picture):
        batches = []
        unet = pipeline.components.unet
        hook = unet.register_forward_pre_hook(lambda _module, inputs: batches.append(len(inputs[0])))
        sampled(order(picture, start_strength=0.4, guidance_end=0.5, frames=2), pipeline)
        hook.remove()
        assert batches == [4, 4, 2, 2, 2]

    def test_control_keeps_to_its_share_of_the_steps_that_are_left(
        self, manager, tiny_checkpoint, tiny_controlnets, picture, tmp_path
    ):
        clip = {"clip": str(write_clip(tmp_path, "gif")), "ready_made": "yes"}
        asked = {"prompt": "a fox", **clip, "start_picture": str(picture), "frames": 2, "steps": 10, "seed": 7}
        calls = []
        with manager.lend(Checkpoint(str(tiny_checkpoint), controlnet=str(tiny_controlnets["edge"]))) as lent:
            hook = lent.controlnet.register_forward_pre_hook(lambda *_: calls.append(1))
            sampled(EdgeRequest(**asked, control_end=0.5), lent)
            hook.remove()
            with pytest.raises(UserError, match=r"from is 0\.1 and .* is 0\.2: .* none of the 5 steps.*more steps"):
                sampled(EdgeRequest(**asked, control_start=0.1, control_end=0.2), lent)
        assert len(calls) == 2  # of five steps

    def test_its_size_is_in_the_picture_s_proportions_and_the_rest_is_cut_off(self, pipeline, tmp_path):
        wide = tmp_path / "wide.png"
        Image.new("RGB", (96, 54), (9, 90, 200)).save(wide)
        events = list(generate(order(wide, frames=2), pipeline))
        assert events[-1].video.frames.shape == (2, 64, 88, 3)
        assert events[-1].video.settings["request"]["size"] == "88x64"
        square = list(generate(order(wide, frames=2, size=Size(64, 64)), pipeline))
        notices = [event.text for event in square if isinstance(event, Notice)]
        assert any("start picture as it is used: 96x54 -> 64x64, 44% cropped at left and right" in n for n in notices)

    def test_of_a_clip_the_first_frame_is_taken_and_that_is_told(self, pipeline, tmp_path):
        clip = write_clip(tmp_path, "gif")
        told = [event.text for event in generate(order(clip, frames=2), pipeline) if isinstance(event, Notice)]
        assert any("the first of its" in text for text in told)

    def test_only_the_steps_that_are_left_are_taken_and_the_estimate_knows(self, pipeline, picture):
        counted = [
            event for event in generate(order(picture, start_strength=0.6), pipeline) if isinstance(event, Progress)
        ]
        assert max(event.of for event in counted if event.stage == "Denoising") == 7
        drawn, begun = (
            evaluations(Job(order(start, start_strength=0.5), Checkpoint("toyland"))) for start in ("", picture)
        )
        assert begun < drawn

    def test_a_clip_s_shape_and_a_picture_s_look_go_together(self, manager, tiny_checkpoint, tiny_controlnets, picture):
        clip = write_clip(picture.parent, "gif")
        asked = {"prompt": "a fox", "clip": str(clip), "frames": 3, "steps": 10, "seed": 3, "ready_made": "yes"}
        asked |= {"size": Size(64, 64)}
        with manager.lend(Checkpoint(str(tiny_checkpoint), controlnet=str(tiny_controlnets["edge"]))) as lent:
            plain, unused, kept, redrawn = (
                sampled(EdgeRequest(**asked, **more), lent)
                for more in (
                    {},
                    {"start_strength": 0.1},
                    {"start_picture": str(picture), "start_strength": 0.1},
                    {"start_picture": str(picture), "start_strength": 0.9},
                )
            )
            request = EdgeRequest(**asked, start_picture=str(picture))
            whole, parts = (sampled(EdgeRequest(**request.to_dict() | {"chunk_size": n}), lent) for n in (8, 1))
            _, clean = result_of(start_latents(request, lent))
        assert torch.equal(plain, unused)
        assert torch.allclose(whole, parts, atol=1e-4)
        assert (kept - clean).square().mean() < (redrawn - clean).square().mean()


class TestHostile:
    def test_a_picture_that_is_too_large_is_refused_in_one_sentence(self, pipeline, tmp_path):
        bomb = bare_png(tmp_path / "bomb.png", 20_000, 20_000)
        with pytest.raises(UserError, match=r"bomb\.png cannot be read .*more than 64 megapixels") as told:
            sampled(order(bomb), pipeline)
        assert str(tmp_path) not in str(told.value)

    @pytest.mark.parametrize("content", [b"", b"\x89PNG\r\n\x1a\n", b"<svg/>", b"#EXTM3U\nfile:///etc/passwd\n"])
    def test_what_is_no_picture_is_refused_in_one_sentence(self, pipeline, tmp_path, content):
        path = tmp_path / "me.png"
        path.write_bytes(content)
        with pytest.raises(UserError, match=r"me\.png .*give an MP4"):
            sampled(order(path), pipeline)

    def test_one_that_is_not_there_is_named_before_anything_is_drawn(self, pipeline):
        with pytest.raises(UserError, match=r"no file gone\.png: check the name"):
            next(generate(order("gone.png"), pipeline))


class TestSettings:
    def test_looking_at_it_can_be_stopped(self, pipeline, picture, monkeypatch):
        monkeypatch.setattr("text2video_zero.media.clips.HASHED_AT_A_TIME", 16)
        begun = generate(order(picture, frames=1), pipeline)
        assert [next(begun) for _ in range(3)] == [Progress("Looking at the start picture", 0, 1)] * 3
        begun.close()

    def test_they_have_its_name_and_hash_and_no_folder(self, pipeline, picture):
        told = list(generate(order(picture, frames=1), pipeline))[-1].video.settings
        assert told["request"]["start_picture"] == picture.name
        assert told["picture"] == file_hash(picture)[:10]
        plain = list(generate(order("", frames=1), pipeline))[-1].video.settings
        assert "picture" not in plain
        assert "start_picture" not in plain["request"]

    def test_another_picture_than_then_is_told(self, manager, tiny_checkpoint, picture, tmp_path):
        other = tmp_path / "other.png"
        Image.new("RGB", (64, 64), (9, 90, 200)).save(other)
        written = tmp_path / "video.json"
        made = {"task": "text-to-video", "request": order(picture, frames=1).to_dict(), "picture": file_hash(picture)}
        for file, told in ((picture, 0), (other, 1)):
            written.write_text(json.dumps(made | {"picture": file_hash(picture)[:10]}))
            settings = Settings.read(written, "text-to-video")
            given = {"start_picture": str(file)}
            job = build_job("text-to-video", given, model=str(tiny_checkpoint), settings=settings)
            events = list(run_job(job, manager))
            notices = [event.text for event in events if isinstance(event, Notice) and "picture differs" in event.text]
            assert isinstance(events[-1], Finished)
            assert len(notices) == told
            looks = [event for event in events if isinstance(event, Progress) and "the start picture" in event.stage]
            assert [event.stage.split()[0] for event in looks].count("Looking") == 1

    def test_the_command_line_wants_it_again(self, tiny_checkpoint, picture, tmp_path, monkeypatch, capsys):
        monkeypatch.chdir(tmp_path)
        short = ["text-to-video", "--model", str(tiny_checkpoint), "--device", "cpu", "--quiet"]
        asked = ["--prompt", "a fox", "--frames", "2", "--steps", "4", "--seed", "1", "--start-picture", str(picture)]
        assert main([*short, *asked, "--output", "a.mp4"]) == 0
        assert read_settings(tmp_path / "a.mp4")["request"]["start_picture"] == picture.name
        again = [*short, "--settings", "a.mp4", "--output", "b.mp4"]
        assert main(again) == 2
        assert f"There is no file {picture.name}: check the name." in capsys.readouterr().err
        assert main([*again, "--start-picture", str(picture)]) == 0
        assert (tmp_path / "a.mp4").read_bytes() == (tmp_path / "b.mp4").read_bytes()


@pytest.fixture(scope="module")
def client(tiny_checkpoint, tmp_path_factory):
    with served(tiny_checkpoint, tmp_path_factory.mktemp("outputs")) as address:
        yield Client(address, verbose=False, download_files=str(tmp_path_factory.mktemp("downloads")))


class TestServed:
    def predict(self, client, **values):
        asked = {"prompt": "a fox", "frames": 2, "steps": 4, "seed": 1}
        return client.predict(**asked | values, api_name="/text-to-video")

    def test_a_program_sends_it_or_leaves_it_out(self, client, picture):
        _, _, begun = self.predict(client, start_picture=handle_file(picture), start_strength=0.5)
        assert begun["request"]["start_picture"] == picture.name
        assert begun["picture"] == file_hash(picture)[:10]
        assert "picture" not in self.predict(client)[2]
        assert "picture" not in self.predict(client, start_picture=None)[2]

    @pytest.mark.parametrize("form", ["{}", '{"meta": {"_type": "gradio.FileData"}}', "null"])
    def test_no_program_names_a_picture_of_the_serving_machine(self, client, picture, form):
        """As others than Gradio's own client send it, which uploads what it is given."""
        assert "event: complete" in self.posted(client)
        beside = json.loads(form)
        named = str(picture) if beside is None else {"path": str(picture), **beside}
        answer = self.posted(client, start_picture=named)
        assert "event: error" in answer
        assert "event: complete" not in answer

    def posted(self, client, **values):
        """What the server answers to a program's bare request."""
        endpoint = client.view_api(return_format="dict", print_info=False)["named_endpoints"]["/text-to-video"]
        asked = {"prompt": "a fox", "frames": 2, "steps": 4, "seed": 1, **values}
        parameters = {one["parameter_name"]: one["parameter_default"] for one in endpoint["parameters"]} | asked
        calls = f"{client.src.rstrip('/')}/gradio_api/call/text-to-video"
        event = httpx.post(calls, json={"data": list(parameters.values())}).raise_for_status().json()["event_id"]
        return httpx.get(f"{calls}/{event}", timeout=120).raise_for_status().text
