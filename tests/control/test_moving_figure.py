"""Figures that move by themselves: poses in time, on the ground, in the picture, under a camera."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from text2video_zero.control.creatures import CREATURES, Bearing
from text2video_zero.control.figure import GROWN_UP, KEYPOINTS, MIRRORED_ORDER, PICTURE_BOOK
from text2video_zero.control.movements import MOVED
from text2video_zero.control.moving_figure import GROUND, body_of, figure_of, poses, skeleton_of, trunk_of
from text2video_zero.control.pose import OPENPOSE_KEYPOINTS
from text2video_zero.requests import Size
from text2video_zero.requests.camera import BEGINNING
from text2video_zero.requests.movement import KINDS, PERSON, Moving
from text2video_zero.sampling.motion.split import SplitPose, seen_from

SQUARE = Size(256, 256)
STILL = SplitPose(BEGINNING)
ALL = [Moving(kind, does) for kind, movements in MOVED.items() for does in movements]
GOING = [moving for moving in ALL if MOVED[moving.kind][moving.does].goes]
STAYING = [moving for moving in ALL if moving not in GOING]
AT_REST = {("car", "stand"), ("rocket", "stand")}


def named(moving) -> str:
    return f"{moving.kind} {moving.does}"


def skeletons(moving, views, fps, size, build=PICTURE_BOOK, **more) -> np.ndarray:
    """The maps (f, height, width, 3) of a movement."""
    posed = poses(moving, views, fps, size, figure_of(moving.kind, build), **more)
    return np.stack([skeleton_of(one, size) for one in posed])


def middle(skeleton: np.ndarray) -> np.ndarray:
    """Of what is drawn, x and y in pixels."""
    weight = skeleton.sum(-1, dtype=float)  # moved, it is smeared, and weighs the same
    rows, columns = np.indices(weight.shape)
    return np.array([(weight * columns).sum(), (weight * rows).sum()]) / weight.sum()


def overlap(one: np.ndarray, other: np.ndarray) -> float:
    """Of two skeletons, the share of what is drawn that both have; joints are rounded to pixels this way or that."""
    return (one.any(-1) & other.any(-1)).sum() / (one.any(-1) | other.any(-1)).sum()


def test_each_that_can_be_asked_for_is_drawn():
    assert {PERSON, *CREATURES} == set(MOVED) == set(KINDS)
    for kind, movements in MOVED.items():
        assert set(movements) == {KINDS[kind].usual, *KINDS[kind].ways.values()}


def test_keypoints_are_openpose_s():
    assert [name.replace("right ", "r_").replace("left ", "l_") for name in OPENPOSE_KEYPOINTS] == list(KEYPOINTS)
    swapped = [name.translate(str.maketrans("rl", "lr")) if "_" in name[:2] else name for name in KEYPOINTS]
    assert [KEYPOINTS[place][:2] for place in MIRRORED_ORDER] == [name[:2] for name in swapped]


@pytest.mark.parametrize(
    ("moving", "build"),
    [(moving, PICTURE_BOOK) for moving in ALL] + [(moving, GROWN_UP) for moving in ALL if moving.kind == PERSON],
    ids=lambda value: named(value) if isinstance(value, Moving) else "grown up" if value is GROWN_UP else "",
)
class TestInTime:
    def test_poses_are_a_path_that_comes_back_after_a_period(self, moving, build):
        frames = 16  # of a period
        fps = frames / MOVED[moving.kind][moving.does].seconds
        maps = skeletons(moving, [STILL] * (frames + 1), fps, SQUARE, build)
        assert overlap(maps[0], maps[frames]) > 0.9
        if (moving.kind, moving.does) in AT_REST:
            assert (maps == maps[0]).all()
            return
        near = np.mean([overlap(*pair) for pair in pairwise(maps)])
        # Who walks is alike after half a period, with the other leg before, and a ball looks the same three times.
        far = [
            np.mean([overlap(*pair) for pair in zip(maps, np.roll(maps[:frames], shift, 0), strict=False)])
            for shift in (4, 8)
        ]
        assert min(far) < near < 1

    def test_a_loop_has_whole_periods(self, moving, build):
        looped = skeletons(moving, [STILL] * 7, 8, SQUARE, build, loop=True)
        seconds = MOVED[moving.kind][moving.does].seconds
        turns = max(1, round(7 / 8 / seconds))
        same = skeletons(moving, [STILL] * 8, 7 / turns / seconds, SQUARE, build)
        assert all(overlap(*pair) > 0.9 for pair in zip(looped, same, strict=False))
        assert overlap(same[7], same[0]) > 0.9

    @pytest.mark.parametrize("size", [Size(128, 128), Size(512, 512), Size(256, 512), Size(512, 256)], ids=str)
    def test_the_figure_is_in_the_picture_and_its_feet_are_on_the_ground(self, moving, build, size):
        for posed in poses(moving, [STILL] * 16, 16, size, figure_of(moving.kind, build)):
            skeleton = skeleton_of(posed, size)
            rows, columns = np.nonzero(skeleton.any(-1))
            assert skeleton.shape == (size.height, size.width, 3)
            assert rows.min() > 0
            assert 0 < columns.min() <= columns.max() < size.width - 1
            assert rows.max() / size.height < GROUND + 0.05
            lowest = max(rows.max(), *posed.outline[:, 1], 0) / size.height
            rises = moving.does in {"jump", "run", "dance", "fly"} or moving.kind == "fish"
            assert rises or lowest > GROUND - (0.02 if moving.kind == PERSON else 0.06)


@pytest.mark.parametrize("moving", [moving for moving in ALL if moving.does == "jump"], ids=named)
def test_who_jumps_leaves_the_ground(moving):
    heights = [np.nonzero(one.any(-1))[0].max() for one in skeletons(moving, [STILL] * 8, 8, SQUARE)]
    assert max(heights) - min(heights) > 0.05 * SQUARE.height


@pytest.mark.parametrize("moving", STAYING, ids=named)
def test_who_stays_passes_by_as_the_scene_does(moving):
    pan = SplitPose(replace(BEGINNING, x=0.125))
    here, there = (skeletons(moving, [view] * 3, 8, SQUARE) for view in (STILL, pan))
    assert np.array_equal(np.roll(there, 32, axis=2), here)


@pytest.mark.parametrize("moving", GOING, ids=named)
def test_who_goes_stays_in_the_picture(moving):
    pan = SplitPose(replace(BEGINNING, x=0.125))
    here, there = (skeletons(moving, [view] * 3, 8, SQUARE) for view in (STILL, pan))
    assert np.array_equal(here, there)


@pytest.mark.parametrize("moving", GOING, ids=named)
def test_who_goes_faces_where_the_camera_goes(moving):
    right, left = (
        skeletons(moving, [STILL, *[SplitPose(replace(BEGINNING, x=x))] * 3], 8, SQUARE).any(-1) for x in (0.1, -0.1)
    )
    flipped = left[:, :, ::-1]
    assert (right & flipped).sum() / (right | flipped).sum() > 0.7
    assert (right & flipped).sum() > 1.2 * (right & left).sum()


@given(
    moving=st.sampled_from([moving for moving in ALL if moving.kind in {PERSON, "rocket"}]),  # others reach the edge
    x=st.floats(-0.03, 0.03),
    y=st.floats(-0.03, 0.03),
    scale=st.floats(0.95, 1.05),
    turn=st.floats(-0.03, 0.03),
    steps=st.integers(-2, 2),
)
def test_what_the_picture_shows_in_the_end_hangs_on_the_camera_alone_and_not_on_how_it_is_split(
    moving, x, y, scale, turn, steps
):
    """The skeleton as the finished picture would have it, for a camera in the latents and one in the picture."""
    whole = replace(BEGINNING, x=x + steps / 16, y=y)
    rest = replace(BEGINNING, x=x, y=y, scale=scale, angle=turn)
    views = SplitPose(replace(BEGINNING, x=steps / 16), rest), SplitPose(replace(rest, x=whole.x))
    apart, together = (skeletons(moving, [view], 8, SQUARE)[0] for view in views)
    assert np.abs(middle(seen_from(apart, rest)) - middle(together)).max() < 3


def test_who_goes_turns_around_with_the_camera():
    """To and fro, and in a loop: nobody walks backwards."""
    to_and_fro = [SplitPose(replace(BEGINNING, x=x)) for x in (0.0, 0.1, 0.2, 0.1, 0.0)]
    figure = figure_of("fox", PICTURE_BOOK)
    nose, hip = KEYPOINTS.index("nose"), KEYPOINTS.index("r_hip")
    right = []
    for posed in poses(Moving("fox", "walk"), to_and_fro, 8, SQUARE, figure):
        hips = posed.joints[[hip, KEYPOINTS.index("l_hip")], 0]
        right.append(posed.joints[nose, 0] > hips.max())
    assert right == [True, True, True, False, False]


@pytest.mark.parametrize("moving", ALL, ids=named)
def test_a_body_is_around_all_that_is_drawn_and_leaves_room_for_what_is_not(moving):
    figure = figure_of(moving.kind, PICTURE_BOOK)
    for posed in poses(moving, [STILL] * 5, 8, SQUARE, figure):
        body, trunk, drawn = body_of(posed, SQUARE, figure), trunk_of(posed, SQUARE), skeleton_of(posed, SQUARE).any(-1)
        assert trunk[drawn].all()
        assert body[trunk > 0].all()
        assert body.sum() > trunk.sum()
        assert body.mean() < 0.6


@given(kind=st.sampled_from(list(CREATURES)), lean=st.floats(-90, 90), lift=st.floats(0, 0.3))
def test_a_creature_leans_as_a_whole(kind, lean, lift):
    figure = figure_of(kind, PICTURE_BOOK)
    upright, leaning = figure.posed(Bearing()), figure.posed(Bearing(lean=lean, lift=lift))
    there = upright.seen == 1
    for one, other in ((upright.joints[there], leaning.joints[there]), (upright.outline, leaning.outline)):
        apart = [np.linalg.norm(points[:, None] - points[None], axis=-1) for points in (one, other)]
        np.testing.assert_allclose(*apart, atol=1e-9)
