"""What a Space on ZeroGPU does, as a program: the real spaces package, and jobs in the processes that it forks.

It is told where the control plane is by SPACES_ZERO_DEVICE_API_URL, and prints what happened as JSON.
"""

from __future__ import annotations

import asyncio
import dataclasses
import json
import sys
import warnings
from contextlib import closing
from pathlib import Path

import gradio as gr
import spaces  # before torch, whose CUDA it takes the place of
import spaces.zero.wrappers
import torch
from fastapi import Request
from gradio.context import LocalContext

from model_manager import ModelManager
from serving.jobs import Done, Failed
from serving.runners.spaces import VisitorsQueue, ZeroGPURunner
from serving.store import JobStore
from text2video_zero.errors import UserError
from text2video_zero.events import Progress
from text2video_zero.job import Job
from text2video_zero.models.checkpoints import Checkpoint
from text2video_zero.requests import EdgeRequest, TextToVideoRequest

SHORT = TextToVideoRequest(prompt="a fox", frames=2, steps=4, seed=3)
TOKEN = "e30.e30.e30"  # noqa: S105 - a visitor's, without claims


def visit() -> gr.Request:
    """A visitor's request, as it comes through the proxy of a Space."""
    return gr.Request(Request({"type": "http", "headers": [(b"x-ip-token", TOKEN.encode())]}))


def placed(checkpoint: Checkpoint) -> dict[str, object]:
    """Where a model lies that is loaded before the launch, and whether the launch would pack it."""
    manager = ModelManager()
    runner = ZeroGPURunner(lambda: manager, checkpoint)
    with manager.lend(checkpoint) as pipeline:
        device = str(next(pipeline.components.unet.parameters()).device)
        weights = sum(part.numel() * part.element_size() for part in pipeline.components.unet.parameters())
    return {"kind": runner.kind, "device": device, "packed": spaces.zero.torch.size() >= weights}


def without_gpu() -> None:
    """There is none to be brought to the forked process, where all the rest is as on a Space."""
    spaces.zero.wrappers.torch.init = lambda _: None
    spaces.zero.wrappers.torch.move = lambda **_: None


def refused(runner: ZeroGPURunner, job: Job) -> str:
    """What the person is told of a job that comes to no end."""
    try:
        list(runner.run(job))
    except UserError as error:
        return str(error)
    return ""


async def watched(queue: VisitorsQueue, job: Job) -> str:
    """How a visitor's job ended that went through the queue."""
    LocalContext.request.set(visit())
    entry = queue.submit(job, "ann")
    LocalContext.request.set(None)
    async for standing, _ in queue.watched(entry):
        if isinstance(standing.state, Done | Failed):
            return type(standing.state).__name__
    return ""


def main(folder: str, store: str) -> None:
    """Run jobs of all kinds on a checkpoint."""
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    checkpoint = Checkpoint(folder)
    told: dict[str, object] = {"placed": placed(checkpoint)}
    without_gpu()
    runner = ZeroGPURunner(lambda: ModelManager("cpu"), checkpoint)
    job = Job(SHORT, checkpoint)
    *events, finished = runner.run(job)
    told["stages"] = sorted({event.stage for event in events if isinstance(event, Progress)})
    told["frames"] = [frame.tolist() for frame in finished.video.frames]
    with closing(runner.run(Job(dataclasses.replace(SHORT, steps=900), checkpoint))) as long:
        next(event for event in long if isinstance(event, Progress) and event.step == 3)
    *_, again = runner.run(job)
    told["after a stop"] = [frame.tolist() for frame in again.video.frames] == told["frames"]
    told["mistake"] = refused(runner, Job(SHORT, Checkpoint(folder + "/missing")))
    no_clip = EdgeRequest(prompt="a fox", clip="/no/such/clip.gif")
    told["mistake in the call"] = refused(runner, Job(no_clip, checkpoint, maps_only=True))
    told["seconds"] = [runner.seconds(Job(dataclasses.replace(SHORT, frames=frames), checkpoint)) for frames in (8, 64)]
    queue = VisitorsQueue(runner, JobStore(Path(store)))
    queue.open()
    told["queued"] = asyncio.run(watched(queue, Job(SHORT, checkpoint)))
    queue.close()
    told["kept"] = len(queue._contexts)
    long_job = Job(dataclasses.replace(SHORT, frames=512, steps=50), checkpoint)
    runner.pace.learn(long_job, 2000.0)  # however fast this machine is, it asks for more than is lent
    told["no quota"] = refused(runner, long_job)
    LocalContext.request.set(visit())
    told["no quota left"] = refused(runner, long_job)
    sys.stdout.write(json.dumps(told))


if __name__ == "__main__":
    main(*sys.argv[1:])
