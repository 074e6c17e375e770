"""Skeletons: they lie on the people, look as OpenPose draws them, and come rightly out of COCO's keypoints."""

import numpy as np
import pytest

from text2video_zero.control.pose import (
    COCO_KEYPOINTS,
    JOINT_COLOURS,
    LIMB_COLOURS,
    LIMBS,
    OPENPOSE_KEYPOINTS,
    Figures,
    draw_figures,
    draw_skeletons,
    openpose_from_coco,
)
from toyland.world.scene import random_scene, render
from toyland.world.skeleton import KEYPOINTS


def spread_skeleton() -> np.ndarray:
    """(18, 3): all joints visible and far from each other."""
    rng = np.random.default_rng(3)
    grid = np.stack(np.meshgrid(np.linspace(0.1, 0.9, 5), np.linspace(0.1, 0.9, 4)), -1).reshape(-1, 2)
    return np.concatenate([rng.permutation(grid)[:18], np.ones((18, 1))], axis=1).astype(np.float32)


def only(*joints: int) -> np.ndarray:
    skeleton = spread_skeleton()
    skeleton[[joint not in joints for joint in range(18)], 2] = 0
    return skeleton


def colours(picture: np.ndarray) -> set[tuple[int, int, int]]:
    drawn = picture[picture.any(-1)]  # few of the pixels
    return {tuple(colour) for colour in np.unique(drawn, axis=0).tolist()}


class TestDrawing:
    @pytest.mark.parametrize("subject", ["panda", "robot", "person"])
    @pytest.mark.parametrize("size", [128, 512])
    def test_limbs_lie_on_the_subject(self, subject, size):
        for seed in range(3):
            rendering = render(random_scene(np.random.default_rng(seed), subject=subject), size)
            drawn = draw_skeletons(rendering.skeleton[None], size, size).any(-1)
            assert (rendering.mask[drawn] > 0.5).mean() > 0.97
            assert drawn[rendering.mask > 0.5].mean() > 0.05

    def test_every_joint_and_limb_has_its_standard_colour(self):
        skeleton = spread_skeleton()
        whole = draw_skeletons(skeleton[None], 512, 512)
        for joint in range(18):
            assert colours(draw_skeletons(only(joint)[None], 512, 512)) == {JOINT_COLOURS[joint]}
            x, y = (skeleton[joint, :2] * 512).astype(int)
            assert tuple(whole[y, x]) == JOINT_COLOURS[joint]
        for limb, colour in zip(LIMBS, LIMB_COLOURS, strict=True):
            picture = draw_skeletons(only(*limb)[None], 512, 512)
            x, y = (skeleton[list(limb), :2].mean(0) * 512).astype(int)
            assert tuple(picture[y, x]) == colour

    def test_the_colours_are_those_of_openpose(self):
        assert JOINT_COLOURS[:6] == [
            (255, 0, 0),
            (255, 85, 0),
            (255, 170, 0),
            (255, 255, 0),
            (170, 255, 0),
            (85, 255, 0),
        ]
        assert JOINT_COLOURS[-1] == (255, 0, 85)
        named = {
            (OPENPOSE_KEYPOINTS[begin], OPENPOSE_KEYPOINTS[end]): c
            for (begin, end), c in zip(LIMBS, LIMB_COLOURS, strict=True)
        }
        assert named["neck", "right shoulder"] == (153, 0, 0)
        assert named["neck", "left hip"] == (0, 153, 153)
        assert named["left eye", "left ear"] == (153, 0, 102)

    def test_it_looks_as_controlnets_own_annotator_draws_it(self):
        open_pose = pytest.importorskip("controlnet_aux.open_pose")
        bodies = open_pose.BodyResult
        skeletons = np.stack([spread_skeleton(), spread_skeleton()[::-1]])
        skeletons[1, [4, 9], 2] = 0
        poses = [
            open_pose.PoseResult(
                bodies([open_pose.Keypoint(x, y) if seen else None for x, y, seen in skeleton], 0.0, 0),
                None,
                None,
                None,
            )
            for skeleton in skeletons.tolist()
        ]
        theirs = open_pose.draw_poses(poses, 512, 768, draw_hand=False, draw_face=False)
        ours = draw_skeletons(skeletons, 512, 768)
        # Coordinates are cut to whole pixels once there and once here; a pixel may differ at a border.
        assert (ours != theirs).any(-1).mean() < 1e-4

    def test_what_is_not_visible_is_not_drawn(self):
        hidden = spread_skeleton()
        hidden[:, 2] = 0
        assert not draw_skeletons(hidden[None], 128, 128).any()
        assert not draw_skeletons(np.empty((0, 18, 3)), 128, 128).any()
        without_wrist = spread_skeleton()
        without_wrist[4, 2] = 0
        seen = colours(draw_skeletons(without_wrist[None], 512, 512))
        assert JOINT_COLOURS[4] not in seen
        assert LIMB_COLOURS[LIMBS.index((3, 4))] not in seen

    def test_widths_follow_the_size(self):
        share = [draw_skeletons(spread_skeleton()[None], side, side).any(-1).mean() for side in (512, 1024)]
        assert share[0] == pytest.approx(share[1], rel=0.1)

    def test_joints_outside_of_the_frame_do_no_harm(self):
        skeleton = spread_skeleton() * (3, 3, 1) - (1, 1, 0)
        assert draw_skeletons(skeleton[None], 96, 64).shape == (96, 64, 3)

    def test_hands_are_rainbows_with_blue_joints_and_faces_white_dots(self):
        points = np.linspace(0.2, 0.8, 21)
        hand = np.stack([points, points**2, np.ones(21)], axis=1)[None]
        face = np.array([[[0.9, 0.1, 1], [0.8, 0.1, 1], [0.0, 0.0, 0]]])
        seen = colours(draw_figures(Figures(np.empty((0, 18, 3)), hand, face), 512, 512))
        assert {(0, 0, 255), (255, 255, 255), (255, 0, 0)} <= seen
        assert len(seen) > 15


class TestKeypoints:
    def test_the_renderer_counts_as_we_do(self):
        long = {"r": "right", "l": "left"}
        spoken = tuple(" ".join(long.get(part, part) for part in name.split("_")) for name in KEYPOINTS)
        assert spoken == OPENPOSE_KEYPOINTS

    def test_coco_becomes_openpose(self):
        coco = np.stack([np.arange(17), np.arange(17) * 2, np.linspace(0.1, 0.9, 17)], axis=1)
        openpose = openpose_from_coco(coco)
        assert openpose.shape == (18, 3)
        for name in COCO_KEYPOINTS:
            assert np.array_equal(openpose[OPENPOSE_KEYPOINTS.index(name)], coco[COCO_KEYPOINTS.index(name)])
        # left shoulder is 5, right shoulder 6; the neck is between and as sure as the less sure one
        assert openpose[1] == pytest.approx([5.5, 11.0, coco[5, 2]])

    def test_no_neck_without_both_shoulders(self):
        coco = np.ones((2, 17, 3))
        coco[0, 6, 2] = 0
        assert openpose_from_coco(coco)[:, 1, 2].tolist() == [0, 1]

    def test_of_nobody_comes_nobody(self):
        assert openpose_from_coco(np.empty((0, 17, 3))).shape == (0, 18, 3)
