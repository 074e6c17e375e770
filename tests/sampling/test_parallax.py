"""Parallax on pictures whose depth and displacement are known, and in whole runs."""

from __future__ import annotations

import math
from dataclasses import replace

import cv2
import numpy as np
import pytest

from tests.runs import order
from text2video_zero.errors import UserError
from text2video_zero.generate import generate
from text2video_zero.models.catalogue import TOYLAND
from text2video_zero.requests.camera import BEGINNING, CameraPose
from text2video_zero.sampling.motion.parallax import DepthScale, Parallax
from text2video_zero.sampling.motion.split import SplitPose, seen_from

SIDE = 64
WHOLE = DepthScale(far=0.0, near=1.0, middle=0.5)
PANNED = SplitPose(BEGINNING, CameraPose(8 / SIDE, 0, 1, 0))  # all of it is left for the picture


def waves(seed=0, side=SIDE):
    """A smooth picture, (side, side, 3) uint8."""
    noise = np.random.default_rng(seed).uniform(0, 255, (side, side, 3)).astype(np.float32)
    return cv2.normalize(cv2.GaussianBlur(noise, (0, 0), 3), None, 20, 235, cv2.NORM_MINMAX).astype(np.uint8)


def stage():
    """A white square, near, before waves that are far: picture, depth and mask."""
    mask = np.zeros((SIDE, SIDE), bool)
    mask[20:44, 24:40] = True
    picture = np.where(mask[..., None], np.uint8(255), waves())
    return picture, mask.astype(np.float32), mask


def white(picture):
    return picture.min(-1) > 245


def test_a_plane_moves_as_the_camera_whatever_the_strength():
    picture = waves()
    for strength in (0.3, 1.0):
        scale = DepthScale.of(np.full((SIDE, SIDE), 7.0, np.float32))
        seen = Parallax(strength, scale).seen(picture, np.full((SIDE, SIDE), 7.0, np.float32), PANNED)
        assert np.abs(seen.astype(int) - seen_from(picture, PANNED.rest)).max() <= 1


def test_what_is_near_moves_further_than_what_is_far():
    picture, depth, _ = stage()
    seen = Parallax(0.5, WHOLE).seen(picture, depth, PANNED)
    rows, columns = np.nonzero(white(seen))
    assert (rows.min(), rows.max()) == (20, 43)
    assert abs(columns.min() - (24 - 10)) <= 1  # 1.25 · 8 pixels
    assert abs(columns.max() - (39 - 10)) <= 1
    far = slice(0, 16)  # rows without anything near
    assert np.abs(seen[far, :50].astype(int) - picture[far, 6:56]).max() <= 1  # 0.75 · 8 pixels


def test_what_is_uncovered_is_filled_with_what_is_far():
    picture, depth, _ = stage()
    seen = Parallax(1.0, WHOLE).seen(picture, depth, PANNED)
    assert np.count_nonzero(white(seen)) == pytest.approx(np.count_nonzero(white(picture)), rel=0.1)


def test_the_way_back_is_that_of_the_other_direction():
    picture, depth, _ = stage()
    there = Parallax(0.6, WHOLE).seen(picture, depth, PANNED)
    mirrored = Parallax(0.6, WHOLE).seen(
        picture[:, ::-1], depth[:, ::-1], SplitPose(BEGINNING, CameraPose(-8 / SIDE, 0, 1, 0))
    )
    assert np.abs(there[:, 12:-12].astype(int) - mirrored[:, ::-1][:, 12:-12]).mean() < 1


@pytest.mark.parametrize(("is_drawn", "grown"), [(True, 1.2), (False, 1.2**3)], ids=["in latents", "in the picture"])
def test_a_zoom_makes_near_things_grow_faster(is_drawn, grown):
    """What is near grows by 1.2 to the power 1.5 in all, of which 1.2 may have happened to the latents."""
    picture, depth, mask = stage()
    zoomed = CameraPose(0, 0, 1.2, 0)
    view = SplitPose(zoomed) if is_drawn else SplitPose(BEGINNING, zoomed)
    seen = Parallax(1.0, WHOLE).seen(picture, depth, view)
    assert np.count_nonzero(white(seen)) == pytest.approx(mask.sum() * grown, rel=0.12)


def test_without_strength_a_camera_is_the_plain_one():
    picture, depth, _ = stage()
    pose = CameraPose(0.05, -0.1, 1.2, 0.3)
    seen = Parallax(0.0, WHOLE).seen(picture, depth, SplitPose(BEGINNING, pose))
    inner = (slice(12, -12), slice(12, -12))
    assert np.abs(seen[inner].astype(int) - seen_from(picture, pose)[inner]).mean() < 1


def test_a_camera_at_its_beginning_or_that_only_turns_changes_nothing():
    picture, depth, _ = stage()
    assert Parallax(1.0, WHOLE).seen(picture, depth, SplitPose(BEGINNING)) is picture
    turned = Parallax(1.0, WHOLE).seen(picture, depth, SplitPose(CameraPose(0, 0, 1, math.tau / 10)))
    assert np.abs(turned.astype(int) - picture).max() <= 1


def test_a_shift_is_the_same_in_cells_and_in_the_picture():
    """Of a pan of 8 pixels the latents may have gone some way already; what is seen is the same."""
    depth = np.tile(np.linspace(0, 1, SIDE, dtype=np.float32)[:, None], (1, SIDE))  # a floor
    picture = waves()
    whole = Parallax(0.8, WHOLE).seen(picture, depth, PANNED)
    half = CameraPose(4 / SIDE, 0, 1, 0)
    gone = Parallax(0.8, WHOLE).seen(seen_from(picture, half), depth, SplitPose(half, half))
    assert np.abs(whole[:, :40].astype(int) - gone[:, :40]).mean() < 1


def pictures(request, pipeline, manager):
    *_, finished = generate(request, pipeline, manager)
    return np.asarray(finished.video.frames)


@pytest.fixture
def toy(pipeline):
    """The tiny pipeline under Toyland's name, so that Toyland's own reader sees its depth."""
    return replace(pipeline, checkpoint=replace(pipeline.checkpoint, source=TOYLAND.checkpoint.source))


def test_without_parallax_nobody_is_asked_for_depth_and_with_it_all_but_the_first_frame_changes(toy, manager):
    plain = pictures(order(), toy, None)
    deep = pictures(order(parallax=1.0), toy, manager)
    assert np.array_equal(plain[0], deep[0])
    assert all(
        np.abs(before.astype(int) - after).mean() > 0.1 for before, after in zip(plain[1:], deep[1:], strict=True)
    )


def test_longer_clips_begin_with_shorter_ones(toy, manager):
    deep = {"parallax": 0.7, "motion_smoothness": 2.0}
    shorter, longer = (pictures(order(frames=frames, **deep), toy, manager) for frames in (3, 6))
    assert np.abs(longer[:3].astype(int) - shorter).max() <= 1


def test_a_camera_that_stands_still_has_no_parallax(toy, manager):
    still = {"pan_x": 0.0, "pan_y": 0.0}
    plain, deep = (pictures(order(**still, parallax=strength), toy, manager) for strength in (0.0, 1.0))
    assert np.array_equal(plain, deep)


def test_a_detector_that_cannot_be_had_is_told_before_anything_is_sampled(pipeline, manager, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    events = generate(order(parallax=0.5), pipeline, manager)
    with pytest.raises(UserError, match=r"Parallax is 0\.5 and needs a depth detector.* Or set parallax to 0\."):
        list(events)
