"""The procedural world: its pictures and the ground truth that comes with them."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import pytest

from text2video_zero.control.creatures import CREATURES as FIGURES
from toyland.world.bipeds import BIPEDS
from toyland.world.creatures import CREATURES
from toyland.world.defects import Defect
from toyland.world.palette import WING
from toyland.world.scene import (
    ACTIONS,
    ACTIONS_OF,
    COLORS,
    DEFECTS_OF,
    PLACES,
    SUBJECTS,
    WEATHER,
    WEATHER_OF,
    Scene,
    random_scene,
    render,
    render_backdrop,
)
from toyland.world.skeleton import KEYPOINTS, MIRRORED_ORDER, creature_joints


def random_scenes(count: int, seed: int = 0, **fixed: object) -> list[Scene]:
    rng = np.random.default_rng(seed)
    return [random_scene(rng, **fixed) for _ in range(count)]


def test_same_seed_gives_the_same_scenes_and_pictures():
    for first, second in zip(random_scenes(20), random_scenes(20), strict=True):
        assert first == second
        one, two = render(first, 64), render(second, 64)
        assert np.array_equal(one.image, two.image)
        assert np.array_equal(one.mask, two.mask)
        assert np.array_equal(one.depth, two.depth)


def test_fixed_fields_are_kept_and_the_rest_fits_to_them():
    for scene in random_scenes(50, action="dancing", place="snow", color="red"):
        assert (scene.action, scene.place, scene.color) == ("dancing", "snow", "red")
        assert "dancing" in ACTIONS_OF[scene.subject]
        assert scene.weather in WEATHER_OF["snow"]


def test_every_value_is_drawn():
    scenes = random_scenes(1500)
    assert {scene.subject for scene in scenes} == set(SUBJECTS)
    assert {scene.color for scene in scenes} == set(COLORS)
    assert {scene.place for scene in scenes} == set(PLACES)
    assert {scene.action for scene in scenes} == set(ACTIONS)
    assert {scene.weather for scene in scenes} == set(WEATHER)


@pytest.mark.parametrize("place", PLACES)
def test_the_weather_changes_nothing_that_stands_on_the_ground(place):
    """Or an editor that is told to make it snow would have to guess where the trees go."""
    for scene in random_scenes(5, place=place, subject="ball"):
        below = slice(29, None)  # rows without clouds
        depths = [render(replace(scene, weather=weather), 64).depth[below] for weather in WEATHER]
        assert all(np.array_equal(depth, depths[0]) for depth in depths)


@pytest.mark.parametrize("subject", SUBJECTS)
@pytest.mark.parametrize("place", PLACES)
def test_every_subject_renders_in_every_place(subject, place):
    (scene,) = random_scenes(1, subject=subject, place=place)
    rendering = render(scene, 64)
    assert rendering.image.shape == (64, 64, 3)
    assert rendering.image.dtype == np.uint8
    assert rendering.mask.shape == rendering.depth.shape == (64, 64)
    assert rendering.mask.dtype == rendering.depth.dtype == np.float32
    assert 0.08 < rendering.mask.mean() < 0.5, "the subject is large"
    assert rendering.skeleton.shape == (18, 3)


@pytest.mark.parametrize("subject", [name for name in SUBJECTS if "eye missing" in DEFECTS_OF[name]])
def test_a_face_is_where_an_eye_can_go_missing(subject):
    for scene in random_scenes(6, seed=3, subject=subject):
        whole, flawed = render(scene), render(scene, defect=Defect("eye missing"))
        x, y, radius = whole.face
        assert flawed.face == whole.face
        rows, columns = np.nonzero((whole.image != flawed.image).any(-1))
        assert len(rows)
        away = np.hypot((columns + 0.5) / 128 - x, (rows + 0.5) / 128 - y)
        assert away.max() < radius + 0.02, scene


def test_who_has_no_eyes_has_no_face():
    for subject in ("astronaut", "car", "rocket", "ball"):
        assert render(*random_scenes(1, subject=subject)).face is None


def test_the_whole_subject_is_in_the_frame():
    for scene in random_scenes(150, seed=1):
        mask = render(scene, 64).mask
        edge = np.concatenate([mask[0], mask[-1], mask[:, 0], mask[:, -1]])
        assert edge.max() < 0.05, scene


def test_mask_is_where_the_picture_differs_from_its_backdrop():
    for scene in random_scenes(40, seed=2):
        rendering = render(scene)
        difference = np.abs(rendering.image.astype(int) - render_backdrop(scene)).max(axis=2)
        assert difference[rendering.mask == 0].max() == 0, scene
        # Where the subject has the colour of what is behind it, the outline still differs.
        assert (difference[rendering.mask == 1] > 0).mean() > 0.8, scene


@pytest.mark.parametrize("subject", SUBJECTS)
def test_skeleton_lies_on_the_subject(subject):
    for action in ACTIONS_OF[subject]:
        for scene in random_scenes(5, seed=3, subject=subject, action=action):
            rendering = render(scene, 128)
            assert rendering.skeleton.shape == (18, 3)
            assert rendering.skeleton.dtype == np.float32
            seen = rendering.skeleton[:, 2] == 1
            assert seen.all() == (subject in {*BIPEDS, "cat", "fox"})
            assert not rendering.skeleton[~seen].any()
            columns, rows = np.floor(rendering.skeleton[seen, :2].T * 128).astype(int)
            near = cv2.dilate(rendering.mask, np.ones((3, 3)))  # ears and fins have tips that are thin
            on_subject = (rendering.mask if subject in BIPEDS else near)[rows, columns]
            assert (on_subject > 0.9).all(), (scene, dict(zip(np.array(KEYPOINTS)[seen], on_subject, strict=True)))


@pytest.mark.parametrize(("subject", "root", "tip"), [("car", 2, 3), ("fish", 5, 6), ("ball", 3, 4)])
def test_what_flies_without_legs_has_keypoints_at_its_wing_and_has_them_in_flight_alone(subject, root, tip):
    """Nothing else of its skeleton says that there is one."""
    for action in ACTIONS_OF[subject]:
        for scene in random_scenes(4, seed=6, subject=subject, action=action, facing=1, color="blue"):
            rendering = render(scene, 128)
            assert rendering.skeleton[tip, 2] == (action == "flying")
            if action == "flying":
                x, y = (0.4 * rendering.skeleton[root, :2] + 0.6 * rendering.skeleton[tip, :2]) * 128
                around = rendering.image[int(y) - 2 : int(y) + 3, int(x) - 2 : int(x) + 3].reshape(-1, 3)
                assert np.abs(around.astype(int) - WING).sum(1).min() < 12, scene


@pytest.mark.parametrize("subject", CREATURES)
def test_a_creature_s_outline_is_around_all_that_is_drawn_of_it(subject):
    """Which a video takes for the subject's own: what is drawn beyond stays behind where it moves."""
    for action in ACTIONS_OF[subject]:
        for scene in random_scenes(4, seed=8, subject=subject, action=action, facing=1):
            rendering, outline = render(scene, 128), np.array(FIGURES[subject].outline, np.float32)
            joints = creature_joints(subject, scene.action, scene.phase)
            seen = joints[:, 2] == 1
            placed, *_ = np.linalg.lstsq(joints[seen], rendering.skeleton[seen, :2])
            hull = cv2.convexHull((128 * cv2.convertPointsToHomogeneous(outline)[:, 0] @ placed).astype(np.int32))
            around = cv2.fillConvexPoly(np.zeros((128, 128), np.uint8), hull, 1)
            around = cv2.dilate(around, np.ones((2 * round(0.05 * scene.height * 128) + 1,) * 2))
            assert (rendering.mask > 0.5)[around == 0].mean() < 0.004, scene


def test_mirroring_swaps_the_sides_of_the_skeleton():
    scene = Scene("robot", "red", "moon", "walking", phase=0.2)
    right, left = (render(replace(scene, facing=facing), 64).skeleton for facing in (1, -1))
    mirrored = right[list(MIRRORED_ORDER)]
    mirrored[:, 0] = 1 - mirrored[:, 0]
    np.testing.assert_allclose(left, mirrored, atol=1e-6)


def test_right_shoulder_of_a_figure_that_faces_us_is_on_the_left():
    for facing in (1, -1):
        scene = Scene("person", "green", "street", facing=facing)
        points = dict(zip(KEYPOINTS, render(scene, 64).skeleton, strict=True))
        assert points["r_shoulder"][0] < points["l_shoulder"][0]


@pytest.mark.parametrize("place", PLACES)
def test_depth_is_near_below_and_far_above(place):
    (scene,) = random_scenes(1, seed=4, place=place, subject="ball", action="standing")
    rendering = render(scene)
    assert rendering.depth.min() >= 0
    assert rendering.depth.max() <= 1
    backdrop = np.where(rendering.mask == 0, rendering.depth, np.nan)
    assert np.nanmedian(backdrop[:10]) < 0.1
    assert np.nanmedian(backdrop[-5:]) > 0.7
    on_subject = rendering.depth[rendering.mask == 1]
    assert np.ptp(on_subject) < 1e-6
    foot_row = np.flatnonzero(rendering.mask.max(axis=1) > 0.5)[-1]
    assert 0 < on_subject[0] - np.nanmedian(backdrop[foot_row]) < 0.2


def test_the_nearer_foot_is_the_nearer_subject():
    scene = Scene("bear", "blue", "meadow", height=0.6, y=0.5)
    far, near = (render(replace(scene, y=y), 64) for y in (0.5, 0.65))
    assert far.depth[far.mask == 1][0] < near.depth[near.mask == 1][0]


def test_every_size_shows_the_same_picture():
    for scene in random_scenes(8, seed=5):
        small, large = render(scene, 64), render(scene, 256)
        shrunk = cv2.resize(large.image, (64, 64), interpolation=cv2.INTER_AREA)
        assert np.abs(shrunk.astype(int) - small.image).mean() < 5, scene
        mask = cv2.resize(large.mask, (64, 64), interpolation=cv2.INTER_AREA)
        assert np.abs(mask - small.mask).mean() < 0.02, scene


@pytest.mark.parametrize("subject", SUBJECTS)
def test_phase_is_periodic_and_smooth_and_leaves_the_backdrop_alone(subject):
    for action in ACTIONS_OF[subject]:
        scene = Scene(subject, "yellow", "beach", action, y=0.5, height=0.5, detail_seed=7)
        masks = [render(replace(scene, phase=step / 12), 64).mask for step in range(12)]
        steps = [np.abs(a - b).mean() for a, b in zip(masks, [*masks[1:], masks[0]], strict=True)]
        # The last step, back to the first picture, is no larger than the others.
        assert max(steps) < 0.06, (action, steps)
        moved = replace(scene, phase=0.5)
        assert np.array_equal(render_backdrop(scene, 64), render_backdrop(moved, 64))


def test_panning_moves_near_things_more_than_far_ones():
    scene = Scene("cat", "red", "street", detail_seed=3)
    still, panned = (render_backdrop(replace(scene, pan=pan)) for pan in (0.0, 0.2))

    def shift_of(rows: slice) -> int:
        """How many pixels the rows have moved, by the best match."""
        a, b = still[rows].astype(int), panned[rows].astype(int)
        errors = [np.abs(a[:, : 128 - s] - b[:, s:]).mean() for s in range(30)]
        return int(np.argmin(errors))

    houses, road_markings = shift_of(slice(45, 75)), shift_of(slice(109, 114))
    assert 0 < houses < road_markings


def test_colours_of_subjects_are_well_apart():
    """The mean colour of a bear tells its colour's name from all others."""
    means = {}
    for color in COLORS:
        rendering = render(Scene("bear", color, "moon"), 64)
        means[color] = rendering.image[rendering.mask == 1].mean(axis=0)
    for one in COLORS:
        for other in COLORS:
            if one != other:
                assert np.linalg.norm(means[one] - means[other]) > 35, (one, other)
