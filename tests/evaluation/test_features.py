"""Scores of features, on vectors whose answer is known, and of a real CLIP."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from text2video_zero.evaluation.features import (
    ClipFeatures,
    directional_score,
    frame_consistency,
    subject_consistency,
    text_score,
)
from text2video_zero.evaluation.measures import FeatureScores, MeasuredClip
from text2video_zero.models.catalogue import TOYLAND_FOLDER
from text2video_zero.models.checkpoints import DetectorCheckpoint
from text2video_zero.requests import EdgeRequest, TextToVideoRequest
from toyland.world.captions import plain_caption
from toyland.world.scene import random_scene, render

EAST, NORTH = np.array([1.0, 0.0]), np.array([0.0, 1.0])


def test_the_text_score_is_a_hundred_cosines_and_never_below_zero():
    assert text_score(np.stack([EAST, EAST]), EAST) == 100
    assert text_score(np.stack([EAST, NORTH]), EAST) == 50
    assert text_score(np.stack([-EAST]), EAST) == 0


def test_frames_are_consistent_with_their_neighbours():
    assert frame_consistency(np.stack([EAST] * 3)) == 1
    assert frame_consistency(np.stack([EAST, NORTH, NORTH])) == 0.5
    assert frame_consistency(EAST[None]) == 1


def test_the_subject_is_consistent_with_the_first_frame_too():
    assert subject_consistency(np.stack([EAST, NORTH, NORTH])) == pytest.approx(0.25)
    assert subject_consistency(np.stack([EAST] * 4)) == 1
    assert subject_consistency(EAST[None]) == 1


def test_pictures_change_as_the_texts_do():
    before = np.stack([EAST, EAST])
    assert directional_score(before, before + NORTH, EAST, EAST + 2 * NORTH) == pytest.approx(1)
    assert directional_score(before, before - NORTH, EAST, EAST + NORTH) == pytest.approx(-1)
    assert directional_score(before, before, EAST, NORTH) == 0


def test_clip_sees_in_a_picture_what_its_text_says(manager):
    """Toyland's own CLIP, lent as any other would be, on what its renderer drew."""
    scene = random_scene(np.random.default_rng(4), subject="panda")
    frames = np.repeat(render(scene, 128).image[None], 2, axis=0)
    with manager.lend_detector(DetectorCheckpoint(str(TOYLAND_FOLDER / "clip"), "features")) as lent:
        measure = FeatureScores(ClipFeatures(lent.network.model, lent.network.processor))
        right, wrong = (
            measure(MeasuredClip(frames, TextToVideoRequest(prompt=prompt)))
            for prompt in (plain_caption(scene), "a blue rocket on the moon")
        )
    assert right["clip_text"] > wrong["clip_text"] + 10
    assert right["clip_frames"] == pytest.approx(1, abs=1e-5)
    assert set(right) <= set(measure.columns)


def test_clip_sees_whether_a_clip_changed_as_was_said(manager):
    """The same panda in snow instead of a meadow, by Toyland's CLIP on what its renderer drew."""
    meadow = random_scene(np.random.default_rng(4), subject="panda", place="meadow", weather="sunny")
    source, changed = (render(scene, 128).image[None] for scene in (meadow, replace(meadow, place="snow")))
    asked = EdgeRequest(prompt="a panda in the snow", clip="meadow.mp4")
    with manager.lend_detector(DetectorCheckpoint(str(TOYLAND_FOLDER / "clip"), "features")) as lent:
        features = ClipFeatures(lent.network.model, lent.network.processor)
        measure = FeatureScores(features, clip_shows="a panda in a meadow")
        found = measure(MeasuredClip(changed, asked, source=source))
        other = FeatureScores(features, clip_shows="a panda in a meadow", video_shows="a panda at night")
        assert found["directional"] > other(MeasuredClip(changed, asked, source=source))["directional"]
        assert measure(MeasuredClip(source, asked, source=source))["directional"] == pytest.approx(0, abs=1e-4)
        assert "directional" not in measure(MeasuredClip(changed, asked))
        assert "directional" not in FeatureScores(features)(MeasuredClip(changed, asked, source=source))
    assert found["directional"] > 0.2
    assert set(found) <= set(measure.columns)
