"""Ready-made control maps are known where they are certain, also after compression; pictures never are."""

import colorsys
import functools
from pathlib import Path

import cv2
import numpy as np
import pytest

from tests.media.clip_files import hung_decoder
from text2video_zero.control.control_source import is_ready_made
from text2video_zero.control.depth import drawn_depths
from text2video_zero.control.pose import draw_skeletons
from text2video_zero.control.ready_made import looks_ready_made
from text2video_zero.events import Progress
from text2video_zero.generators import result_of
from text2video_zero.media.clips import read_clip
from text2video_zero.media.video import Video
from text2video_zero.requests import DepthRequest, EdgeRequest, PoseRequest, Size
from toyland.world.scene import Rendering, random_scene, render

KINDS = ("pose", "edge", "depth")
REQUESTS = {"pose": PoseRequest, "edge": EdgeRequest, "depth": DepthRequest}
CLIPS = Path(__file__).resolve().parents[2] / "assets" / "clips"


def grey(picture: np.ndarray) -> np.ndarray:
    """(h, w) or (h, w, 3) as (h, w, 3) without colours."""
    single = picture if picture.ndim == 2 else cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY)
    return single[..., None].repeat(3, -1)


def rainbow(size: int) -> np.ndarray:
    """A broad rainbow on black, as in a title."""
    picture = np.zeros((size, size, 3), np.uint8)
    for column in range(size // 4, 3 * size // 4):
        picture[size // 3 : size // 2, column] = 255 * np.array(colorsys.hsv_to_rgb(2 * column / size % 1, 1, 1))
    return picture


def fireworks(size: int) -> np.ndarray:
    """Sparks of all colours at night."""
    picture = np.zeros((size, size, 3), np.uint8)
    rng = np.random.default_rng(0)
    for _ in range(40):
        colour = (255 * np.array(colorsys.hsv_to_rgb(rng.random(), 1, 1))).tolist()
        cv2.circle(picture, rng.integers(0, size, 2).tolist(), size // 60 + 1, colour, cv2.FILLED)
    return picture


DRAWN = {
    "pose": lambda rendering: draw_skeletons(rendering.skeleton[None], *rendering.mask.shape),
    "edge": lambda rendering: grey(cv2.Canny(rendering.image, 100, 200)),
    "depth": lambda rendering: next(drawn_depths([rendering.depth])),
    "picture": lambda rendering: rendering.image,
    "picture without colours": lambda rendering: grey(rendering.image),
    "mask": lambda rendering: grey((255 * rendering.mask).astype(np.uint8)),
    "black": lambda rendering: np.zeros_like(rendering.image),
    "rainbow": lambda rendering: rainbow(len(rendering.mask)),
    "fireworks": lambda rendering: fireworks(len(rendering.mask)),
}


@functools.cache
def renderings(size: int) -> list[Rendering]:
    """Four pictures of a panda, with all that is known of them."""
    scenes = [random_scene(np.random.default_rng(seed), subject="panda") for seed in range(4)]
    return [render(scene, size) for scene in scenes]


def clip_of(kind: str, size: int) -> np.ndarray:
    """Four frames (4, size, size, 3) of something."""
    return np.stack([DRAWN[kind](rendering) for rendering in renderings(size)])


def through_a_video(frames: np.ndarray, size: int, folder) -> np.ndarray:
    path = Video(frames, 8, {}).save(folder / "clip.mp4")
    return read_clip(path, first_frame=0, frames=99, fps=None, size=Size(size, size), native=Size(size, size)).frames


@pytest.mark.parametrize("size", [128, 256, 512])
@pytest.mark.parametrize("kind", ["pose", "edge"])
def test_control_maps_are_known_after_compression(kind, size, tmp_path):
    frames = clip_of(kind, size)
    for seen in (frames, through_a_video(frames, size, tmp_path)):
        for asked in KINDS:
            assert {looks_ready_made(frame, asked) for frame in seen} == {asked == kind}


@pytest.mark.parametrize("size", [128, 512])
@pytest.mark.parametrize("kind", sorted(DRAWN.keys() - {"pose", "edge"}))
def test_nothing_else_is_taken_for_one(kind, size):
    for asked in KINDS:
        assert not all(looks_ready_made(frame, asked) for frame in clip_of(kind, size))


@pytest.mark.parametrize("read", [128, 256, 512])
@pytest.mark.parametrize("drawn", [128, 256, 512])
@pytest.mark.parametrize("kind", [*KINDS, "picture"])
def test_a_clip_is_judged_as_it_was_drawn_whatever_the_size_of_the_video(kind, drawn, read, tmp_path):
    path = Video(clip_of(kind, drawn), 8, {}).save(tmp_path / "clip.mp4")
    clip = read_clip(path, first_frame=0, frames=4, fps=8, size=Size(read, read), native=Size(read, read))
    for asked, request_type in REQUESTS.items():
        request = request_type(prompt="a fox", clip=str(path))
        assert result_of(is_ready_made(request, clip)) == (asked == kind and kind != "depth")


@pytest.mark.parametrize("path", sorted(CLIPS.glob("*.mp4")), ids=lambda path: path.stem)
def test_of_the_example_clips_skeletons_alone_are_certain(path):
    clip = read_clip(path, first_frame=0, frames=8, fps=8, size=None, native=Size(128, 128))
    for asked, request_type in REQUESTS.items():
        request = request_type(prompt="a fox", clip=str(path))
        assert result_of(is_ready_made(request, clip)) == (asked == "pose" and path.stem.endswith("skeleton"))


def test_only_the_part_that_is_used_is_judged(tmp_path):
    frames = np.concatenate([clip_of("picture", 128), clip_of("pose", 128), clip_of("picture", 128)])
    path = Video(frames, 8, {}).save(tmp_path / "clip.mp4")
    for first_frame, length, certain in ((4, 4, True), (3, 4, False), (5, 4, False), (0, 12, False)):
        request = PoseRequest(prompt="a fox", clip=str(path), first_frame=first_frame, frames=length)
        clip = read_clip(path, first_frame=first_frame, frames=length, fps=8, size=Size(64, 64), native=Size(64, 64))
        assert result_of(is_ready_made(request, clip)) is certain


@pytest.mark.parametrize("looks", [0, 1, 3])
def test_looking_whether_it_is_one_can_be_stopped_while_the_clip_takes_long(looks, tmp_path):
    path = Video(clip_of("edge", 128), 8, {}).save(tmp_path / "clip.mp4")
    clip = read_clip(path, first_frame=0, frames=4, fps=8, size=None, native=Size(128, 128))
    with hung_decoder() as decoder:
        looking = is_ready_made(EdgeRequest(prompt="a fox", clip=str(path)), clip)
        assert [type(next(looking)) for _ in range(looks)] == [Progress] * looks
        looking.close()
        assert (decoder.poll() is None) == (looks == 0)


def test_one_other_frame_is_enough_to_doubt():
    frames = clip_of("pose", 128)
    frames[2] = clip_of("picture", 128)[2]
    assert not all(looks_ready_made(frame, "pose") for frame in frames)
