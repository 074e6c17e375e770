"""Steady pans: whole cells in the latents, the rest in the picture."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionPipeline
from hypothesis import given
from hypothesis import strategies as some

from tests.runs import order, sampled
from text2video_zero.events import Finished
from text2video_zero.generate import generate, sample
from text2video_zero.generators import result_of
from text2video_zero.models.catalogue import TOYLAND_FOLDER
from text2video_zero.requests.camera import CameraPose
from text2video_zero.sampling.decoding import decoded_frames
from text2video_zero.sampling.motion.camera import sample_positions
from text2video_zero.sampling.motion.split import SplitPose, completed, seen_from
from text2video_zero.sampling.motion.warp import warp
from toyland.judges.evaluate import prompt_scenes
from toyland.world.captions import plain_caption
from toyland.world.scene import render

shares = some.floats(-1, 1)
CELL = 1 / 8  # of a frame of 64 pixels
LCM = {"sampler": "LCM", "steps": 4, "guidance_scale": 1.0, "motion_from": 879, "motion_to": 939}


def pictures(count=1, side=64):
    return np.random.default_rng(0).integers(0, 256, (count, side, side, 3), np.uint8)


@given(shares, shares, some.integers(1, 96), some.integers(1, 96), some.integers(1, 8))
def test_a_pan_is_whole_steps_and_less_than_half_a_step(x, y, height, width, step):
    split = SplitPose.of(CameraPose(x, y, 1, 0), height, width, step)
    ways = ((split.cells.x, split.rest.x, x, width), (split.cells.y, split.rest.y, y, height))
    for whole, rest, shift, cells in ways:
        assert abs(whole * cells / step - round(whole * cells / step)) < 1e-9
        assert abs(rest * cells) <= step / 2 + 1e-9
        assert math.isclose(whole + rest, shift, abs_tol=1e-12)


@pytest.mark.parametrize("pose", [CameraPose(0.1, 0.2, 1.05, 0), CameraPose(0.1, 0.2, 1, 0.1)], ids=str)
def test_zooms_and_turns_are_the_pictures(pose):
    split = SplitPose.of(pose, 8, 8)
    assert split.cells == CameraPose(1 / 8, 2 / 8, 1, 0)
    assert (split.rest.scale, split.rest.angle) == (pose.scale, pose.angle)


def test_a_picture_is_seen_from_where_the_camera_is():
    (picture,) = pictures(side=33)
    turned = seen_from(picture, CameraPose(0, 0, 1, math.pi / 2))
    assert np.array_equal(turned, np.rot90(picture))
    pose = CameraPose(0.1, -0.2, 1.3, 0.4)
    x, y = (position.numpy() for position in sample_positions(pose, 33, 33))
    ramps = 4 * np.stack([*np.meshgrid(np.arange(33), np.arange(33)), np.zeros((33, 33))], -1)
    seen = seen_from(ramps.astype(np.uint8), pose)
    inside = (x > 2) & (x < 30) & (y > 2) & (y < 30)
    assert np.abs(seen[..., 0] - 4 * x)[inside].max() < 1
    assert np.abs(seen[..., 1] - 4 * y)[inside].max() < 1


def test_a_picture_moves_as_latents_do():
    (picture,) = pictures()
    planes = torch.from_numpy(picture).permute(2, 0, 1).float()
    for x, y in ((4, 0), (0, -3), (-2, 5)):
        wanted = warp(planes, CameraPose(x / 64, y / 64, 1, 0), "nearest").permute(1, 2, 0).numpy()
        assert np.array_equal(seen_from(picture, CameraPose(x / 64, y / 64, 1, 0)), wanted)


def test_without_a_shift_a_picture_is_itself_and_by_half_a_pixel_it_is_between_its_neighbours():
    (picture,) = pictures()
    assert seen_from(picture, CameraPose(0, 0, 1, 0)) is picture
    ramp = np.repeat(np.arange(64, dtype=np.uint8)[None, :, None] * 4, 64, 0).repeat(3, 2)
    half = seen_from(ramp, CameraPose(0.5 / 64, 0, 1, 0))
    assert np.all(half[:, 4:-4] == ramp[:, 4:-4] + 2)


@pytest.mark.parametrize("way", [1, -1])
def test_what_latents_lack_on_the_side_that_the_camera_comes_from_the_first_frame_has(way):
    """A scene of which the latents have gone ahead by 16 pixels and the camera by 11."""
    scene = np.zeros((64, 128, 3), np.uint8)
    scene[..., :2] = np.stack(np.meshgrid(2 * np.arange(128), 4 * np.arange(64)), -1)
    first, drawn, wanted = (scene[:, 32 + way * shift :][:, :64] for shift in (0, 16, 11))
    view = SplitPose(CameraPose(way * 16 / 64, 0, 1, 0), CameraPose(way * -5 / 64, 0, 1, 0))
    assert view.whole.x == pytest.approx(way * 11 / 64)
    assert np.abs(completed(drawn, view, first).astype(int) - wanted).max() <= 1
    assert np.abs(seen_from(drawn, view.rest).astype(int) - wanted).max() > 5


def test_what_neither_has_is_mirrored_and_a_frame_that_has_all_stays_what_it_is():
    frame, first = pictures(2)
    ahead = SplitPose(CameraPose(0.25, 0, 1, 0), CameraPose(3 / 64, 0, 1, 0))
    assert np.array_equal(completed(frame, ahead, first)[:, 4:], seen_from(frame, ahead.rest)[:, 4:])
    closer = SplitPose(CameraPose(0.25, 0, 1, 0), CameraPose(0, 0, 1.2, 0.01))
    assert np.array_equal(completed(frame, closer, first), seen_from(frame, closer.rest))
    assert completed(frame, SplitPose(CameraPose(0.25, 0, 1, 0)), first) is frame


def test_a_pan_by_whole_cells_is_the_smooth_one_bit_for_bit(pipeline):
    pans = {"pan_x": CELL, "pan_y": -CELL, "motion_smoothness": 1.5}
    steady, smooth = (sampled(order(**pans, resampling=name), pipeline) for name in ("steady", "smooth"))
    assert torch.equal(steady, smooth)


def test_under_zooms_and_turns_latents_are_those_of_a_still_camera_bit_for_bit(pipeline):
    still, zoom = (sampled(order(pan_x=0.0, pan_y=0.0, **camera), pipeline) for camera in ({}, {"zoom": 0.05}))
    assert torch.equal(still, zoom)


@pytest.mark.parametrize(("step", "rests"), [(1, [0, 0.3, -0.4, -0.1, 0.2]), (2, [0, 0.3, 0.6, 0.9, -0.8])])
@torch.inference_mode()
def test_what_is_left_of_a_pan_is_done_to_the_pictures(pipeline, step, rests):
    request = order(frames=5, pan_x=0.3 * CELL, pan_y=0.0, cell_step=step)
    drawn = result_of(sample(request, pipeline))
    assert [view.rest.x / CELL for view in drawn.views] == pytest.approx(rests)
    decoded = decoded_frames(pipeline.components.vae, drawn.latents)
    *_, finished = generate(request, pipeline)
    assert isinstance(finished, Finished)
    first, *_ = frames = list(decoded)
    for frame, latent_frame, view in zip(finished.video.frames, frames, drawn.views, strict=True):
        assert np.array_equal(frame, completed(latent_frame, view, first))
    assert any(view.rest.x for view in drawn.views)


@torch.inference_mode()
def test_toylands_unet_takes_what_has_moved_by_even_cells_for_what_it_was():
    """Why its pans wait for them: the noise that it predicts moves along, or does not; looked at off the edges."""
    toyland = StableDiffusionPipeline.from_pretrained(TOYLAND_FOLDER, dtype=torch.float32)
    scenes = prompt_scenes(4, 5, held_out=False)
    images = torch.from_numpy(np.stack([render(scene, 128).image for scene in scenes])).permute(0, 3, 1, 2)
    drawn = toyland.vae.encode(images / 127.5 - 1).latent_dist.mode() * toyland.vae.config.scaling_factor
    words = toyland.tokenizer(
        [plain_caption(scene) for scene in scenes], padding="max_length", return_tensors="pt"
    ).input_ids
    alpha, noise = toyland.scheduler.alphas_cumprod[200], torch.randn(drawn.shape, generator=torch.manual_seed(0))
    noisy, text = alpha.sqrt() * drawn + (1 - alpha).sqrt() * noise, toyland.text_encoder(words)[0]

    def predicted(shift):
        moved = toyland.unet(noisy.roll(-shift, 3), 200, text).sample.roll(shift, 3)
        return moved[..., 2:-2, 8:-4]

    apart = [float((predicted(shift) - predicted(0)).square().mean()) for shift in range(5)]
    assert apart[2] < apart[1] / 2
    assert apart[4] < apart[3] / 2


def test_between_two_cells_nothing_is_drawn_anew(pipeline):
    """Three frames that see the same cells start from the same latents, where poses do not change."""
    still = {"frames": 3, "pan_y": 0.0, "motion_smoothness": 16.0, "loop": True, "cross_frame_attention": True}
    steady, smooth = (
        sampled(order(**still, pan_x=0.3 * CELL, resampling=name), pipeline) for name in ("steady", "smooth")
    )
    jumps = [(clip[1:] - clip[:-1]).square().mean() for clip in (steady, smooth)]
    assert jumps[0] < 0.5 * jumps[1]


def test_the_noise_of_few_steps_goes_along_with_a_steady_camera(pipeline):
    """A pan by whole cells shows the same picture again, as far as it was in sight, and not another one."""
    pan = {"frames": 2, "pan_x": CELL, "pan_y": 0.0, "motion_smoothness": 16.0}
    gaps = []
    for name in ("steady", "smooth"):
        first, second = sampled(order(**LCM, **pan, resampling=name), pipeline)
        gaps.append((second[..., :-2] - first[..., 1:-1]).square().mean())
    assert gaps[0] < 0.5 * gaps[1]
