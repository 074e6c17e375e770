"""Skeletons that move by themselves: poses in time, on the ground, in the picture, under a camera."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from text2video_zero.control import movements
from text2video_zero.control.figure import GROWN_UP, KEYPOINTS, MIRRORED_ORDER, PICTURE_BOOK
from text2video_zero.control.movements import GROUND, MOVED
from text2video_zero.control.pose import OPENPOSE_KEYPOINTS
from text2video_zero.requests import Size
from text2video_zero.requests.camera import BEGINNING
from text2video_zero.requests.movement import MOVEMENTS
from text2video_zero.sampling.motion.split import SplitPose, seen_from

SQUARE = Size(256, 256)
STILL = SplitPose(BEGINNING)
GOING = [name for name, movement in MOVED.items() if movement.goes]
STAYING = [name for name, movement in MOVED.items() if not movement.goes]


def skeletons(*order, **more) -> np.ndarray:
    """The maps (f, height, width, 3) of a movement."""
    return np.stack(list(movements.skeletons(*order, **more)))


def middle(skeleton: np.ndarray) -> np.ndarray:
    """Of what is drawn, x and y in pixels."""
    rows, columns = np.nonzero(skeleton.any(-1))
    return np.array([columns.mean(), rows.mean()])


def overlap(one: np.ndarray, other: np.ndarray) -> float:
    """Of two skeletons, the share of what is drawn that both have; joints are rounded to pixels this way or that."""
    return (one.any(-1) & other.any(-1)).sum() / (one.any(-1) | other.any(-1)).sum()


def test_each_that_can_be_asked_for_is_drawn():
    assert tuple(MOVED) == MOVEMENTS[2:]


def test_keypoints_are_openpose_s():
    assert [name.replace("right ", "r_").replace("left ", "l_") for name in OPENPOSE_KEYPOINTS] == list(KEYPOINTS)
    swapped = [name.translate(str.maketrans("rl", "lr")) if "_" in name[:2] else name for name in KEYPOINTS]
    assert [KEYPOINTS[place][:2] for place in MIRRORED_ORDER] == [name[:2] for name in swapped]


@pytest.mark.parametrize("build", [PICTURE_BOOK, GROWN_UP], ids=["picture book", "grown up"])
@pytest.mark.parametrize("name", MOVED)
class TestInTime:
    def test_poses_are_a_path_that_comes_back_after_a_period(self, name, build):
        frames = round(16 * MOVED[name].seconds)
        maps = skeletons(name, [STILL] * (frames + 1), 16, SQUARE, build)
        assert overlap(maps[0], maps[frames]) > 0.9
        near = [overlap(*pair) for pair in pairwise(maps)]
        far = [overlap(one, other) for one, other in zip(maps, np.roll(maps[:frames], frames // 4, 0), strict=False)]
        assert np.mean(far) < np.mean(near) < 1

    def test_a_loop_has_whole_periods(self, name, build):
        looped = skeletons(name, [STILL] * 7, 8, SQUARE, build, loop=True)
        turns = max(1, round(7 / 8 / MOVED[name].seconds))
        same = skeletons(name, [STILL] * 8, 7 / turns / MOVED[name].seconds, SQUARE, build)
        assert all(overlap(*pair) > 0.9 for pair in zip(looped, same, strict=False))
        assert overlap(same[7], same[0]) > 0.9

    @pytest.mark.parametrize("size", [Size(128, 128), Size(512, 512), Size(256, 512), Size(512, 256)], ids=str)
    def test_the_figure_is_in_the_picture_and_its_feet_are_on_the_ground(self, name, build, size):
        for skeleton in skeletons(name, [STILL] * 16, 16, size, build):
            rows, columns = np.nonzero(skeleton.any(-1))
            assert skeleton.shape == (size.height, size.width, 3)
            assert rows.min() > 0
            assert 0 < columns.min() <= columns.max() < size.width - 1
            lowest = rows.max() / size.height
            assert lowest < GROUND + 0.03
            assert name in {"jump", "run", "dance", "fly"} or lowest > GROUND - 0.02


def test_who_jumps_leaves_the_ground():
    heights = [np.nonzero(one.any(-1))[0].max() for one in skeletons("jump", [STILL] * 8, 8, SQUARE, GROWN_UP)]
    assert max(heights) - min(heights) > 0.08 * SQUARE.height


@pytest.mark.parametrize("name", STAYING)
def test_who_stays_passes_by_as_the_scene_does(name):
    pan = SplitPose(replace(BEGINNING, x=0.125))
    here, there = (skeletons(name, [view] * 3, 8, SQUARE, GROWN_UP) for view in (STILL, pan))
    assert np.array_equal(np.roll(there, 32, axis=2), here)


@pytest.mark.parametrize("name", GOING)
def test_who_goes_stays_in_the_picture(name):
    pan = SplitPose(replace(BEGINNING, x=0.125))
    here, there = (skeletons(name, [view] * 3, 8, SQUARE, GROWN_UP) for view in (STILL, pan))
    assert np.array_equal(here, there)


@pytest.mark.parametrize("name", GOING)
def test_who_goes_faces_where_the_camera_goes(name):
    right, left = (
        skeletons(name, [STILL, *[SplitPose(replace(BEGINNING, x=x))] * 3], 8, SQUARE, GROWN_UP).any(-1)
        for x in (0.1, -0.1)
    )
    flipped = left[:, :, ::-1]
    assert (right & flipped).sum() / (right | flipped).sum() > 0.7
    assert (right & flipped).sum() > 1.2 * (right & left).sum()


@given(
    name=st.sampled_from(list(MOVED)),
    x=st.floats(-0.03, 0.03),
    y=st.floats(-0.03, 0.03),
    scale=st.floats(0.95, 1.05),
    turn=st.floats(-0.03, 0.03),
    steps=st.integers(-2, 2),
)
def test_what_the_picture_shows_in_the_end_hangs_on_the_camera_alone_and_not_on_how_it_is_split(
    name, x, y, scale, turn, steps
):
    """The skeleton as the finished picture would have it, for a camera in the latents and one in the picture."""
    whole = replace(BEGINNING, x=x + steps / 16, y=y)
    rest = replace(BEGINNING, x=x, y=y, scale=scale, angle=turn)
    views = SplitPose(replace(BEGINNING, x=steps / 16), rest), SplitPose(replace(rest, x=whole.x))
    apart, together = (skeletons(name, [view], 8, SQUARE, GROWN_UP)[0] for view in views)
    assert np.abs(middle(seen_from(apart, rest)) - middle(together)).max() < 3
