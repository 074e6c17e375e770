"""What is told of a run: how far it is, how long it will take, and previews now and then."""

from __future__ import annotations

import pytest
import torch

from text2video_zero.events import Preview, Progress
from text2video_zero.requests import Size, TextToVideoRequest
from text2video_zero.sampling.denoising import ChunkDone
from text2video_zero.sampling.kept_steps import KeptSteps
from text2video_zero.tasks import progress, text_to_video
from text2video_zero.tasks.progress import DECODE_COST, ProgressReporter


def loop(chunks):
    """A denoising loop that has nothing to compute."""
    yield from chunks
    return torch.zeros(1)


def chunks(steps, frames):
    """Two chunks a step: one frame, then the rest."""
    for step in range(1, steps + 1):
        yield ChunkDone(step, steps, 1, None)
        yield ChunkDone(step, steps, frames - 1, torch.zeros(frames, 4, 8, 8))


def test_a_step_counts_when_its_last_chunk_is_done(pipeline):
    reporter = ProgressReporter(pipeline.preview_decoder, evaluations=12, frames=4, steps=3)
    events = reporter.reported(loop(chunks(3, 4)), "Denoising")
    assert [event.step for event in events if isinstance(event, Progress)] == [0, 1, 1, 2, 2, 3]


@pytest.mark.parametrize(("steps", "previews"), [(3, 3), (20, 10), (50, 10)])
def test_about_ten_previews_a_run(pipeline, steps, previews):
    events = list(
        ProgressReporter(pipeline.preview_decoder, 4 * steps, 4, steps).reported(loop(chunks(steps, 4)), "Denoising")
    )
    assert sum(isinstance(event, Preview) for event in events) == previews
    assert isinstance(events[-1], Preview)


def test_at_even_speed_the_estimate_is_what_comes_and_what_decoding_takes(pipeline, monkeypatch):
    """A second per frame that goes through the UNet."""
    reporter = ProgressReporter(pipeline.preview_decoder, evaluations=12, frames=4, steps=3, began=0.0)
    monkeypatch.setattr(progress.time, "monotonic", lambda: float(reporter.done))
    events = reporter.reported(loop(chunks(3, 4)), "Denoising")
    left = [event.seconds_left for event in events if isinstance(event, Progress)]
    decoding = DECODE_COST * 4
    assert left == pytest.approx([decoding + 12 - done for done in (1, 4, 5, 8, 9, 12)])
    assert decoding > 0


@pytest.mark.parametrize("smooth_background", [False, True])
@pytest.mark.parametrize("motion", [False, True])
@pytest.mark.parametrize("storyboard", ["", "2: a robot; 9: is never reached"])
def test_a_text_to_video_run_counts_all_its_evaluations_beforehand(pipeline, smooth_background, motion, storyboard):
    if smooth_background and storyboard:
        return  # refused, unless a network is at hand that finds what stands out
    request = TextToVideoRequest(
        "a red fox",
        frames=3,
        steps=5,
        size=Size(64, 64),
        seed=1,
        smooth_background=smooth_background,
        motion=motion,
        storyboard=storyboard,
        shot_anchors=True,
    )
    reporters = []

    class Recorded(ProgressReporter):
        def reported(self, *arguments):
            reporters.append(self)
            return super().reported(*arguments)

    with pytest.MonkeyPatch.context() as patch, torch.inference_mode():
        patch.setattr(text_to_video, "ProgressReporter", Recorded)
        for _ in text_to_video.sample_text_to_video(request, pipeline, KeptSteps()):
            pass
    assert reporters[0].done == reporters[0].evaluations > 0
