"""`python -m benchmarks.smoothing`: how well the foreground is found, and what smoothing the background does.

True masks of generated pictures are not known, so the detector is held against Toyland's renderer: rendered
scenes are encoded, brought to the noise of several timesteps and shown to the UNet with their caption. Then
clips are sampled, each without and with smoothing from the same start, and their steadiness is compared.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np
import torch

from model_manager import ModelManager
from text2video_zero.attention.branches import Branches
from text2video_zero.attention.patches import attention_of
from text2video_zero.device.offload import Placement
from text2video_zero.evaluation.metrics import flow_warp_error, iou, pose_warp_error
from text2video_zero.foreground.attention_maps import CrossAttentionDetector
from text2video_zero.generators import result_of
from text2video_zero.models.catalogue import known_model
from text2video_zero.models.selection import find_checkpoint
from text2video_zero.prompts.encoding import encoded_prompts
from text2video_zero.requests import TextToVideoRequest
from text2video_zero.sampling.decoding import decoded_frames
from text2video_zero.sampling.guidance import TextGuidance
from text2video_zero.sampling.kept_steps import KeptSteps
from text2video_zero.sampling.motion.warp import forward_noise
from text2video_zero.sampling.noise import frame_noise
from text2video_zero.sampling.smoothing import dilated
from text2video_zero.tasks.text_to_video import ClipRun, motion_plan, text_guidance
from toyland.world.captions import caption
from toyland.world.scene import SUBJECTS, Scene, random_scene, render

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from text2video_zero.models.pipeline import Pipeline


TIMESTEPS = (941, 841, 741, 641, 541, 441, 341, 241, 141, 41)
DISC_RADIUS = 0.3  # of the frame's side: the best of 0.2, 0.25, … on the renderer's masks


@dataclass(frozen=True)
class MaskScores:
    """IoU with the true mask of one rendered scene, on the grid of the latents."""

    subject: str
    attention: float
    whole_frame: float
    disc: float


@dataclass(frozen=True)
class ClipScores:
    """One clip without (first) and with (second) smoothing.

    background, foreground: error against the first frame moved as the camera did, `pose_warp_error`.
    background_flow, foreground_flow: error along the optical flow, wherever things went, `flow_warp_error`.
    detail: energy of the background's second derivative, as a check that steadier is not only blurred.
    changed_background, changed_foreground: mean absolute difference between the two clips.
    """

    prompt: str
    seed: int
    background: tuple[float, float]
    foreground: tuple[float, float]
    background_flow: tuple[float, float]
    foreground_flow: tuple[float, float]
    detail: tuple[float, float]
    changed_background: float
    changed_foreground: float


def drawn_scenes(count: int, seed: int) -> list[tuple[Scene, str]]:
    """Random scenes with their captions, as many of every subject as of any other (but for a rest)."""
    rng = np.random.default_rng(seed)
    scenes = [random_scene(rng, subject=SUBJECTS[number % len(SUBJECTS)]) for number in range(count)]
    return [(scene, caption(scene, rng)) for scene in scenes]


def mask_scores(pipeline: Pipeline, scene: Scene, text: str, seed: int) -> MaskScores:
    """How well the detector finds the subject of a rendered scene."""
    components = pipeline.components
    rendering = render(scene, pipeline.native_size.width)
    pixels = torch.from_numpy(rendering.image).permute(2, 0, 1)[None].float() / 127.5 - 1
    clean = components.vae.encode(pixels).latent_dist.mean * components.vae.config.scaling_factor
    noise = frame_noise(seed, 0, clean.shape, "cpu")
    guidance = TextGuidance(components.unet, encoded_prompts(components, text, None), 1.0, Branches(1))
    detector = CrossAttentionDetector(pipeline, text, "", frames=1, branches=Branches(1))
    with detector.observing():
        for timestep in TIMESTEPS:
            noisy = forward_noise(clean, noise, 1.0, components.scheduler.alphas_cumprod[timestep].item())
            guidance(noisy, timestep, slice(0, 1))
    found = detector.masks(clean)[0].numpy()
    height, width = found.shape
    truth = cv2.resize(rendering.mask, (width, height), interpolation=cv2.INTER_AREA)
    return MaskScores(
        scene.subject, iou(found, truth), iou(np.ones_like(truth), truth), iou(centred_disc(height, width), truth)
    )


def centred_disc(height: int, width: int) -> np.ndarray:
    """A mask (height, width) that knows nothing of the picture."""
    y, x = np.mgrid[:height, :width]
    return np.hypot(y - (height - 1) / 2, x - (width - 1) / 2) <= DISC_RADIUS * min(height, width)


def clip_scores(pipeline: Pipeline, request: TextToVideoRequest) -> ClipScores:
    """Sample a clip without and with smoothing, from one start, and compare."""
    components, plan = pipeline.components, motion_plan(request, pipeline)
    guidance = text_guidance(request, pipeline, plan)
    detector = CrossAttentionDetector(pipeline, request.prompt, "", request.frames, guidance.branches)
    placement = Placement.of(pipeline, request.chunk_size)
    with placement, attention_of(request, guidance.branches, components.unet) as memory:
        run = ClipRun(request, pipeline, plan, guidance, memory, placement, KeptSteps())
        joint = plan.joint, range(plan.begin, len(plan.joint.timesteps))
        start = result_of(run.start())
        with detector.observing() as around_chunk:
            plain = result_of(run.denoised(start, *joint, around_chunk=around_chunk))
        masks = detector.masks(plain)
        smoothed = result_of(run.denoised(run.smoothed(start, masks), *joint))
    before, after = (np.stack(list(decoded_frames(components.vae, latents))) for latents in (plain, smoothed))
    poses = [view.cells for view in run.views]  # of the pictures as they are decoded
    factor = pipeline.latent_factor
    foreground = masks.numpy().repeat(factor, 1).repeat(factor, 2)
    background = 1 - dilated(masks).numpy().repeat(factor, 1).repeat(factor, 2)
    changed = np.abs(before.astype(float) - after).mean(-1) / 255

    def of_both(measure: Callable[[np.ndarray], float]) -> tuple[float, float]:
        return measure(before), measure(after)

    return ClipScores(
        prompt=request.prompt,
        seed=request.seed,
        background=of_both(lambda clip: pose_warp_error(clip, poses, background)),
        foreground=of_both(lambda clip: pose_warp_error(clip, poses, foreground)),
        background_flow=of_both(lambda clip: flow_warp_error(clip, background)),
        foreground_flow=of_both(lambda clip: flow_warp_error(clip, foreground)),
        detail=of_both(lambda clip: detail(clip, background)),
        changed_background=float(changed[background > 0.5].mean()),
        changed_foreground=float(changed[foreground > 0.5].mean()),
    )


def detail(frames: np.ndarray, mask: np.ndarray) -> float:
    """Root mean square of the Laplacian within a mask (f, h, w), in shares of the colour range."""
    edges = np.stack([cv2.Laplacian(frame, cv2.CV_32F) for frame in frames]) / 255
    return float(np.sqrt(np.square(edges)[mask > 0.5].mean()))


def mask_table(scores: Sequence[MaskScores]) -> str:
    """Markdown: mean IoU by subject."""
    lines = ["| subject | scenes | attention | whole frame | centred disc |", "|---|---|---|---|---|"]
    for subject in [*SUBJECTS, "all"]:
        rows = [score for score in scores if subject in {score.subject, "all"}]
        if rows:
            means = [np.mean([getattr(row, name) for row in rows]) for name in ("attention", "whole_frame", "disc")]
            lines.append(f"| {subject} | {len(rows)} | {' | '.join(f'{mean:.3f}' for mean in means)} |")
    return "\n".join(lines)


def clip_table(scores: Sequence[ClipScores]) -> str:
    """Markdown: mean ± standard error without and with smoothing, and of the paired difference."""
    lines = ["| measure | without | with | difference | lower in |", "|---|---|---|---|---|"]
    for name in ("background", "foreground", "background_flow", "foreground_flow", "detail"):
        pairs = np.array([getattr(score, name) for score in scores])
        pairs = pairs[np.isfinite(pairs).all(1)]
        difference = pairs[:, 1] - pairs[:, 0]
        cells = [plus_minus(values) for values in (pairs[:, 0], pairs[:, 1], difference)]
        lines.append(
            f"| {name.replace('_', ' ')} | {' | '.join(cells)} | {np.count_nonzero(difference < 0)} of {len(pairs)} |"
        )
    for name in ("changed_background", "changed_foreground"):
        values = np.array([getattr(score, name) for score in scores])
        lines.append(f"| {name.replace('_', ' ')} | | {plus_minus(values[np.isfinite(values)])} | | |")
    return "\n".join(lines)


def plus_minus(values: np.ndarray) -> str:
    """Mean ± standard error, in thousandths of the colour range."""
    if len(values) < 2:
        return "too few"
    return f"{1000 * values.mean():.2f} ± {1000 * values.std(ddof=1) / np.sqrt(len(values)):.2f}"


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print the tables, and keep the rows if asked."""
    description = (__doc__ or "").partition("\n")[0]
    parser = argparse.ArgumentParser(prog="python -m benchmarks.smoothing", description=description)
    parser.add_argument("--model", default="toyland", help="a model that knows Toyland's words")
    parser.add_argument("--scenes", type=int, default=120)
    parser.add_argument("--clips", type=int, default=24)
    parser.add_argument("--steps", type=int, default=25)
    parser.add_argument("--seed", type=int, default=1000)
    parser.add_argument("--out", type=Path, help="JSON file for all rows")
    chosen = parser.parse_args(arguments)
    known = known_model(chosen.model)
    defaults = dict(known.defaults) if known else {}  # as the app runs it
    with ModelManager("cpu").lend(find_checkpoint(chosen.model)) as pipeline, torch.inference_mode():
        masks = [
            mask_scores(pipeline, scene, text, chosen.seed + number)
            for number, (scene, text) in enumerate(drawn_scenes(chosen.scenes, chosen.seed))
        ]
        print(mask_table(masks), flush=True)  # the clips take minutes
        clips = []
        for number, (_, text) in enumerate(drawn_scenes(chosen.clips, chosen.seed + 1)):
            given = {
                "prompt": text,
                "steps": chosen.steps,
                "seed": chosen.seed + number,
                "size": pipeline.native_size,
            }
            request = TextToVideoRequest.from_dict({**defaults, **given})
            clips.append(clip_scores(pipeline, request))
        print(f"\nin thousandths of the colour range\n\n{clip_table(clips)}")
    if chosen.out:
        rows = {"masks": [asdict(score) for score in masks], "clips": [asdict(score) for score in clips]}
        chosen.out.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
