"""Noise: of one frame, as a path through frames, and as a moving camera sees it."""

from __future__ import annotations

import pytest
import torch

from text2video_zero.requests.camera import CAMERA_PRESETS, CameraPose
from text2video_zero.sampling.motion.camera import CameraPath
from text2video_zero.sampling.motion.noise import NoisePath, NoiseScene
from text2video_zero.sampling.motion.warp import warp
from text2video_zero.sampling.noise import frame_noise

SHAPE = (4, 16, 12)
SMOOTHNESSES = [0.0, 0.3, 1.5, 4.0]


def correlation(one, other):
    return float((one * other).mean())


def alike(one, other):
    return torch.corrcoef(torch.stack([one.flatten(), other.flatten()]))[0, 1].item()


class TestFrameNoise:
    def test_hangs_on_seed_and_frame_alone(self):
        noise = frame_noise(3, 5, (4, 8, 8), "cpu")
        assert torch.equal(noise, frame_noise(3, 5, (4, 8, 8), "cpu"))
        for other in ((3, 4), (4, 5), (5, 3), (3, -5)):
            assert abs(alike(noise, frame_noise(*other, (4, 8, 8), "cpu"))) < 0.2

    def test_frames_before_the_clip_meet_no_other(self):
        draws = [frame_noise(3, frame, (4,), "cpu", draw) for frame in range(-70, 520, 10) for draw in range(3)]
        assert len({tuple(draw.tolist()) for draw in draws}) == len(draws)


class TestPath:
    def anchor(self, seed=7):
        return frame_noise(seed, 0, SHAPE, "cpu")

    def test_without_smoothness_every_frame_has_its_own_noise_bit_for_bit(self):
        path = NoisePath(7, SHAPE, 0.0)
        for frame in (1, 2, 50):
            assert torch.equal(path.leaving(self.anchor(), frame), frame_noise(7, frame, SHAPE, "cpu"))

    @pytest.mark.parametrize("period", [None, 6])
    @pytest.mark.parametrize("smoothness", SMOOTHNESSES)
    def test_begins_at_the_anchor(self, smoothness, period):
        assert torch.equal(NoisePath(7, SHAPE, smoothness, period).leaving(self.anchor(), 0), self.anchor())

    @pytest.mark.parametrize("period", [None, 6])
    @pytest.mark.parametrize("smoothness", SMOOTHNESSES)
    def test_is_standard_normal_and_correlates_as_it_says(self, smoothness, period):
        # The first and the later frames over many seeds; the standard error of a mean is 0.002.
        products, squares = {1: 0.0, 2: 0.0, 4: 0.0}, 0.0
        seeds = 300
        for seed in range(seeds):
            path = NoisePath(seed, SHAPE, smoothness, period)
            third = path.leaving(self.anchor(seed), 3)
            squares += correlation(third, third) / seeds
            for distance in products:
                later = path.leaving(self.anchor(seed), 3 + distance)
                products[distance] += correlation(third, later) / seeds
        assert squares == pytest.approx(1, abs=0.01)
        for distance, product in products.items():
            assert product == pytest.approx(path.correlation(distance), abs=0.01)

    def test_the_correlation_is_that_of_a_gaussian_kernel(self):
        path = NoisePath(0, SHAPE, 4.0)
        expected = [torch.exp(torch.tensor(-(d**2) / 64.0)).item() for d in range(12)]
        assert [path.correlation(d) for d in range(12)] == pytest.approx(expected, abs=1e-3)

    def test_ends_where_the_kernel_does(self):
        assert NoisePath(0, SHAPE, 2.0).correlation(17) == 0
        assert NoisePath(0, SHAPE, 0.0).correlation(1) == 0

    def test_longer_clips_and_other_workers_get_the_same(self):
        whole = NoisePath(7, SHAPE, 2.5)
        frames = [whole.leaving(self.anchor(), frame) for frame in range(40)]
        for frame in (39, 3, 17):
            assert torch.equal(NoisePath(7, SHAPE, 2.5).leaving(self.anchor(), frame), frames[frame])

    def test_draws_are_apart(self):
        one, other = (NoisePath(7, SHAPE, 1.5, draw=draw).leaving(self.anchor(), 30) for draw in (0, 1))
        assert abs(alike(one, other)) < 0.15

    @pytest.mark.parametrize("smoothness", SMOOTHNESSES)
    @pytest.mark.parametrize("period", [1, 2, 3, 8])
    def test_a_loop_comes_back(self, smoothness, period):
        path = NoisePath(7, SHAPE, smoothness, period)
        for frame in range(period):
            assert torch.equal(path.leaving(self.anchor(), frame + period), path.leaving(self.anchor(), frame))

    @pytest.mark.parametrize("smoothness", [0.5, 1.0, 2.0])
    def test_the_step_from_last_to_first_is_like_every_other(self, smoothness):
        path = NoisePath(7, (4, 64, 64), smoothness, 12)
        first = frame_noise(7, 0, (4, 64, 64), "cpu")
        frames = [path.leaving(first, frame) for frame in range(12)]
        steps = [(after - before).std() for before, after in zip(frames, [*frames[1:], first], strict=True)]
        assert steps[-1] == pytest.approx(torch.stack(steps).median().item(), rel=0.03)


class TestScene:
    SHAPE = (4, 32, 24)

    def test_standing_still_shows_the_noise_itself(self):
        noise = frame_noise(7, 0, self.SHAPE, "cpu")
        assert torch.equal(NoiseScene(7, self.SHAPE).seen(noise, CameraPose(0, 0, 1, 0)), noise)

    def test_whole_cells_are_moved_as_they_are(self):
        noise = frame_noise(7, 0, self.SHAPE, "cpu")
        seen = NoiseScene(7, self.SHAPE).seen(noise, CameraPose(5 / 24, -3 / 32, 1, 0))
        assert torch.allclose(seen[:, 3:, :19], noise[:, :-3, 5:], atol=1e-5)

    @pytest.mark.parametrize(
        "pose",
        [CameraPose(0, 0, 1, torch.pi / 2), CameraPose(0.1, -0.05, 1.3, 0.2), CameraPose(0, 0, 2, 0)],
        ids=["quarter turn", "all at once", "zoom"],
    )
    def test_moves_noise_to_where_pictures_go(self, pose):
        noise = frame_noise(7, 0, (4, 32, 32), "cpu")
        seen = NoiseScene(7, (4, 32, 32)).seen(noise, pose)
        away = CameraPose(pose.x + 2 / 32, pose.y, pose.scale, pose.angle)
        assert alike(seen, warp(noise, pose, "nearest")) > 0.35
        assert alike(seen, warp(noise, away, "nearest")) < 0.2

    def test_what_comes_into_sight_stays_what_it_is(self):
        scene, noise = NoiseScene(7, self.SHAPE), frame_noise(7, 0, self.SHAPE, "cpu")
        one, other = (scene.seen(noise, CameraPose(cells / 24, 0, 1, 0)) for cells in (6, 9))
        assert torch.allclose(one[:, :, 3:], other[:, :, :-3], atol=1e-5)

    @pytest.mark.parametrize("name", CAMERA_PRESETS)
    def test_is_white_on_every_path(self, name):
        """Over 6 frames of 64 seeds: 1.5 million cells, so that the standard error of each mean is 0.0008."""
        path = CameraPath(*CAMERA_PRESETS[name].values(), 0.25)
        variance, beside, below, count = 0.0, 0.0, 0.0, 0
        for seed in range(64):
            noise, scene = frame_noise(seed, 0, self.SHAPE, "cpu"), NoiseScene(seed, self.SHAPE)
            for frame in (1, 2, 5, 8, 13, 40):
                seen = scene.seen(noise, path.pose(frame))
                variance += correlation(seen, seen)
                beside += correlation(seen[..., 1:], seen[..., :-1])
                below += correlation(seen[:, 1:], seen[:, :-1])
                count += 1
        assert (variance / count) ** 0.5 == pytest.approx(1, abs=0.01)
        assert abs(beside / count) < 0.01
        assert abs(below / count) < 0.01

    @pytest.mark.parametrize(
        "pose",
        [
            CameraPose(0.5 / 24, 0.5 / 32, 1, 0),
            CameraPose(0, 0, 1.25, 0),
            CameraPose(0, 0, 3, 0.3),
            CameraPose(0, 0, 1 / 3, 0),
            CameraPose(1, -1, 1 / 3, 0.5),
            CameraPose(0, 0, 1, 0.4),
        ],
    )
    def test_is_white_at_every_pose(self, pose):
        """192 seeds: 590,000 cells, so that the standard error of each mean is 0.0013, of a variance 0.0018."""
        sums = torch.zeros(4)
        for seed in range(192):
            seen = NoiseScene(seed, self.SHAPE).seen(frame_noise(seed, 0, self.SHAPE, "cpu"), pose)
            sums += torch.stack(
                [
                    seen.square().mean(),
                    (seen[..., 1:] * seen[..., :-1]).mean(),
                    (seen[:, 1:] * seen[:, :-1]).mean(),
                    (seen[1:] * seen[:-1]).mean(),
                ]
            )
        variance, *neighbours = (sums / 192).tolist()
        assert variance**0.5 == pytest.approx(1, abs=0.01)
        assert max(map(abs, neighbours)) < 0.01
