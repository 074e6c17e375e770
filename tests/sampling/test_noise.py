"""Noise: of one frame, and as a path through frames."""

from __future__ import annotations

import pytest
import torch

from text2video_zero.sampling.noise import NoisePath, frame_noise

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
