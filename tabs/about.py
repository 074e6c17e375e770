"""What each part of the method does, in words and in small moving pictures that `python -m toyland.about` makes."""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import quote

import gradio as gr

from tabs.tab import PAPER
from text2video_zero.models.catalogue import ASSETS

PICTURES = ASSETS / "about"
TITLE = "About"

PLAY_WHAT_IS_SEEN = """const calm = matchMedia("(prefers-reduced-motion: reduce)");
const videos = [...element.querySelectorAll("video")];
// Loaded when it comes into sight; who wants no motion sees its first frame, and may start it by hand.
const inSight = new IntersectionObserver((changes) => {
    for (const { target, isIntersecting } of changes) {
        if (isIntersecting) target.preload = "metadata";
        if (isIntersecting && !calm.matches) target.play().catch(() => {});
        else target.pause();
    }
});
for (const video of videos) inSight.observe(video);
calm.addEventListener("change", () => calm.matches && videos.forEach((video) => video.pause()));"""


@dataclass(frozen=True)
class Part:
    """A part of the method.

    picture: the name of its file in PICTURES.  told: what it does, as HTML.  captions: of its videos, left to right.
    section: of the paper, that describes it; blank for what the paper does not have.
    """

    picture: str
    title: str
    told: str
    captions: tuple[str, ...]
    section: str = ""

    def as_html(self) -> str:
        """The part as a figure; its video is loaded when it is seen."""
        where = f'<a href="{PAPER}" target="_blank" rel="noopener">Paper, {self.section}</a>' if self.section else ""
        address = f"gradio_api/file={quote(str((PICTURES / self.picture).resolve()))}.mp4"
        captions = "".join(f"<span>{caption}</span>" for caption in self.captions)
        return (
            f"<figure><h2>{self.title}</h2><p>{self.told} {where}</p>"
            f'<div><video src="{address}" aria-label="{self.title}: {", ".join(self.captions)}" preload="none" '
            f'style="aspect-ratio:{_width(len(self.captions))}/128;mask:{_without_gaps(len(self.captions))}" '
            f"muted loop playsinline controls "
            f'controlslist="nodownload nofullscreen noremoteplayback" disablepictureinpicture></video>'
            f"<p class='captions'>{captions}</p></div></figure>"
        )


PARTS = (
    Part(
        "motion",
        "Motion in the latents",
        "Off, every frame starts from noise of its own, and the scene jumps. On, all begin with the first frame's "
        "latents, moved along the camera's path: the scene stays, the camera pans.",
        ("motion off", "motion on"),
        "3.3.1",
    ),
    Part(
        "attention",
        "Cross-frame attention",
        "Off, each frame looks at itself alone. On, every frame takes keys and values from the first, and keeps what "
        "the words leave open: here, of somebody in the snow, the colours. Motion is off in both, so that each frame "
        "draws somebody else.",
        ("attention off", "attention on"),
        "3.3.2",
    ),
    Part(
        "smoothing",
        "Background smoothing",
        "Off, what lies behind the subject is drawn anew in each frame. On, it is taken from the first frame, moved as "
        "the camera moves, wherever the model does not see the subject.",
        ("smoothing off", "smoothing on"),
        "3.3.3",
    ),
    Part(
        "smoothness",
        "Smoothness of motion",
        "With 0, the paper's, every frame has a pose of its own. Higher, poses turn into one another over that many "
        "frames, since the noise that frames start from is a path in time. The paper does not have it.",
        ("smoothness 0", "smoothness 2", "smoothness 4"),
    ),
    Part(
        "movement",
        "Movement of the subject",
        "With none, the paper's, the camera moves over a subject that hardly does. Asked to dance or to jump, it "
        "takes a skeleton's pose in each frame, by a ControlNet. The paper does so with the poses of a clip.",
        ("none", "dance", "jump"),
        "3.4",
    ),
)


def _width(videos: int) -> int:
    """Of a picture of so many videos of 128 pixels, 8 between them."""
    return 136 * videos - 8


def _without_gaps(videos: int) -> str:
    """A CSS mask that leaves out what is between the videos of a picture, which is white in its file."""
    stops = []
    for video in range(videos):
        begin, end = (100 * (136 * video + side) / _width(videos) for side in (0, 128))
        stops += [f"transparent {begin:.3f}%", f"#000 {begin:.3f}% {end:.3f}%", f"transparent {end:.3f}%"]
    return f"linear-gradient(90deg,{','.join(stops)})"


def build_about() -> None:
    """Lay out the tab. Call inside gr.Tabs."""
    parts = "".join(part.as_html() for part in PARTS)
    told = (
        "A model that has only seen pictures draws all frames of a video together. Nothing is trained for that: three "
        "parts of the method, and a fourth of this program's, make one scene of them. In each picture the prompt, the "
        "seed and all other settings are the same."
    )
    with gr.Tab(TITLE, id="about"):
        gr.HTML(
            f'<section class="parts"><p>{told}</p><div>{parts}</div></section>',
            elem_id="about",
            js_on_load=PLAY_WHAT_IS_SEEN,
        )
