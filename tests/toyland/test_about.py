"""The moving pictures of the page's About: each shows what one setting does, and is as the page describes it."""

from __future__ import annotations

import dataclasses

import pytest

from tabs.about import PARTS, PICTURES
from text2video_zero.media.clips import probe
from toyland.about import COMPARISONS, FPS, FRAMES, GAP, jobs_of


def test_the_page_has_each_picture_with_a_caption_for_each_video():
    assert {part.picture: len(part.captions) for part in PARTS} == {
        name: len(videos) for name, videos in COMPARISONS.items()
    }


@pytest.mark.parametrize("name", COMPARISONS)
def test_a_picture_is_small_and_its_videos_lie_beside_each_other(name):
    path, videos = PICTURES / f"{name}.mp4", len(COMPARISONS[name])
    assert path.stat().st_size < 150_000
    info = probe(path)
    assert (info.frames, info.fps) == (FRAMES, FPS)
    assert (info.size.width, info.size.height) == (videos * 128 + (videos - 1) * GAP, 128)


@pytest.mark.parametrize("name", COMPARISONS)
def test_the_videos_of_a_picture_differ_in_one_setting_alone(name):
    first, *others = (dataclasses.asdict(job.request) for job in jobs_of(name))
    changed = {field for other in others for field, value in other.items() if value != first[field]}
    assert len(changed) == 1
