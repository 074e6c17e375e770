"""From a decoded picture to one of the asked size: its middle cut out, scaled, on black, in the colours of a screen."""

from __future__ import annotations

import functools
import io
import math
from contextlib import suppress
from typing import TYPE_CHECKING, cast

from PIL import Image, ImageCms, ImageFilter, ImageMath

if TYPE_CHECKING:
    from collections.abc import Callable

LATTICE = 33  # nodes of the colour table along each axis; more change no level by more than one
REFERENCE_WHITE = 203.0  # candela per square metre that HDR gives to a white page (ITU-R BT.2408)
HLG_WHITE = 0.265  # the same in HLG: the light that its signal of 75 % stands for
BEYOND_MEASURE = 1e38  # in the greatest numbers of 32 bits; nothing is that far away
KNEE = 0.85  # share of white from where on highlights are compressed; below it colours stay as they are
# Linear light, BT.2020 to BT.709 (ITU-R BT.2087).
TO_BT709 = ((1.6605, -0.5876, -0.0728), (-0.1246, 1.1329, -0.0083), (-0.0182, -0.1006, 1.1187))


def plain(picture: Image.Image) -> Image.Image:
    """A picture of any mode as RGB, or RGBA where it has transparent parts."""
    if picture.mode.startswith("I"):  # 16 bits of grey, as depth maps come; Pillow's conversion would clip them
        levels = picture if picture.mode == "I" else picture.convert("I")
        return levels.point(lambda level: level * (1 / 256)).convert("L").convert("RGB")
    if picture.mode == "F":  # measured values of any range: from black, the least, to white
        picture, low, high = _measured(picture)
        scale = 255 / (high - low) if low < high else 0.0
        return picture.point(lambda value: value * scale - low * scale).convert("L").convert("RGB")
    mode = "RGBA" if picture.has_transparency_data else "RGB"
    return picture if picture.mode == mode else picture.convert(mode)


def _measured(picture: Image.Image) -> tuple[Image.Image, float, float]:
    """Measured values with their least and greatest; what was not measured (NaN, infinite) counts as the least."""
    known = ImageMath.lambda_eval(lambda values: abs(values["value"]) < BEYOND_MEASURE, value=picture)
    holes = known.convert("L").point(lambda is_known: 0 if is_known else 255)
    filled = picture.copy()
    ends: list[float] = []
    for end, filler in enumerate((BEYOND_MEASURE, -BEYOND_MEASURE)):
        filled.paste(filler, mask=holes)
        ends.append(float(cast("tuple[float, float]", filled.getextrema())[end]))
    filled.paste(ends[0], mask=holes)
    return filled, ends[0], ends[1]


def fitted(picture: Image.Image, target: tuple[int, int], aspect: float = 1.0) -> Image.Image:
    """The middle of an RGB or RGBA picture that has the target's proportions, scaled to the target; RGB on black.

    Only what is cut out is ever scaled: a picture of one pixel by a million costs no more than the target.
    aspect: width of a pixel by its height.
    """
    width, height = picture.size
    scale = max(target[0] / (width * aspect), target[1] / height)
    across, down = min(width, target[0] / scale / aspect), min(height, target[1] / scale)
    left, top = (width - across) / 2, (height - down) / 2
    scaled = picture.resize(target, Image.Resampling.BICUBIC, box=(left, top, left + across, top + down))
    if scaled.mode == "RGB":
        return scaled
    return Image.alpha_composite(Image.new("RGBA", target, "black"), scaled).convert("RGB")


def in_srgb(picture: Image.Image, profile: bytes | None) -> Image.Image:
    """An RGB picture in the colours that its ICC profile describes, for a screen; a broken profile is left aside."""
    if profile:
        with suppress(ImageCms.PyCMSError, OSError):
            described = ImageCms.ImageCmsProfile(io.BytesIO(profile))
            if "sRGB" not in ImageCms.getProfileDescription(described):
                screen = ImageCms.createProfile("sRGB")
                return ImageCms.profileToProfile(picture, described, screen, outputMode="RGB") or picture
    return picture


@functools.cache
def tone_mapping(light: Callable[[float], float]) -> ImageFilter.Color3DLUT:
    """A filter from HDR in BT.2020 to sRGB: what SDR shows keeps its colour, brighter light is compressed above it.

    light: from a signal of 0..1 to linear light, `pq_light` or `hlg_light`.
    """

    def mapped(*signal: float) -> tuple[float, float, float]:
        linear = [lights[round(value * (LATTICE - 1))] for value in signal]
        red, green, blue = (
            _srgb(sum(share * part for share, part in zip(row, linear, strict=True))) for row in TO_BT709
        )
        return red, green, blue

    lights = [light(node / (LATTICE - 1)) for node in range(LATTICE)]
    return ImageFilter.Color3DLUT.generate(LATTICE, mapped)


def pq_light(signal: float) -> float:
    """Linear light of PQ (SMPTE ST 2084), 1 for reference white."""
    root = signal ** (32 / 2523)
    return 10_000 / REFERENCE_WHITE * (max(root - 0.8359375, 0) / (18.8515625 - 18.6875 * root)) ** (8192 / 1305)


def hlg_light(signal: float) -> float:
    """Linear light of HLG before its display's gamma (ITU-R BT.2100), 1 for reference white."""
    scene = signal**2 / 3 if signal <= 0.5 else (math.exp((signal - 0.55991073) / 0.17883277) + 0.28466892) / 12
    return scene / HLG_WHITE


def _srgb(light: float) -> float:
    """The signal of linear light; what is brighter than the knee comes ever closer to white."""
    if light > KNEE:
        light = 1 - (1 - KNEE) * math.exp((KNEE - light) / (1 - KNEE))
    light = max(light, 0.0)
    return 12.92 * light if light <= 0.0031308 else 1.055 * light ** (1 / 2.4) - 0.055
