"""Scores of networks that know pictures, where their weights are at hand: CLIP against texts, DINO among frames.

Features are unit vectors (n, c); a score is a cosine.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch.nn import functional

if TYPE_CHECKING:
    from collections.abc import Sequence

    from transformers import CLIPModel, PreTrainedModel

    from text2video_zero.media.frames import Frames


@dataclass(frozen=True)
class PictureFeatures:
    """A network that sees pictures, such as DINO: the features of its class token."""

    model: PreTrainedModel
    processor: Any  # transformers' types say nothing of what they are called with

    @torch.inference_mode()
    def pictures(self, frames: Frames) -> np.ndarray:
        """Features (f, c) of frames."""
        shown = self.processor(images=list(frames), return_tensors="pt").pixel_values
        return _unit(self._of(shown.to(self.model.device, self.model.dtype)))

    def _of(self, shown: torch.Tensor) -> torch.Tensor:
        return self.model(pixel_values=shown).last_hidden_state[:, 0]


@dataclass(frozen=True)
class ClipFeatures(PictureFeatures):
    """CLIP (Radford et al. 2021), which sees pictures and reads texts."""

    model: CLIPModel

    def _of(self, shown: torch.Tensor) -> torch.Tensor:
        return _pooled(self.model.get_image_features(pixel_values=shown))

    @torch.inference_mode()
    def texts(self, texts: Sequence[str]) -> np.ndarray:
        """Features (n, c) of texts; what is too long is cut."""
        tokens = self.processor(text=list(texts), padding="max_length", truncation=True, return_tensors="pt").input_ids
        return _unit(_pooled(self.model.get_text_features(input_ids=tokens.to(self.model.device))))


def _pooled(output: Any) -> torch.Tensor:
    """One vector (n, c) for each; transformers' types name three kinds of answers, of which this is given."""
    return output.pooler_output


def _unit(features: torch.Tensor) -> np.ndarray:
    return functional.normalize(features.float(), dim=-1).cpu().numpy()


def text_score(pictures: np.ndarray, text: np.ndarray) -> float:
    """CLIPScore without its factor (Hessel et al. 2021), as the paper counts: 100·max(cos, 0), mean over frames."""
    return float(100 * np.maximum(pictures @ text, 0).mean())


def frame_consistency(pictures: np.ndarray) -> float:
    """Mean cosine of neighbouring frames (Esser et al. 2023, "Gen-1", section 4.2); 1 for a single frame."""
    return float((pictures[1:] * pictures[:-1]).sum(-1).mean()) if len(pictures) > 1 else 1.0


def subject_consistency(pictures: np.ndarray) -> float:
    """VBench's, with DINO's features (Huang et al. 2024, section 3.2): cosines with the first frame and the one before.

    Their mean over all frames behind the first; negative cosines count as 0. 1 for a single frame.
    """
    if len(pictures) == 1:
        return 1.0
    with_first, with_previous = pictures[1:] @ pictures[0], (pictures[1:] * pictures[:-1]).sum(-1)
    return float((np.maximum(with_first, 0) + np.maximum(with_previous, 0)).mean() / 2)


def directional_score(before: np.ndarray, after: np.ndarray, text_before: np.ndarray, text_after: np.ndarray) -> float:
    """Directional CLIP (Gal et al. 2021, "StyleGAN-NADA"; Brooks et al. 2022): do pictures change as the texts do.

    Cosine of after - before (f, c) with text_after - text_before (c,), mean over frames; 0 where nothing changes.
    """
    pictures, text = after - before, text_after - text_before
    lengths = np.linalg.norm(pictures, axis=-1) * np.linalg.norm(text)
    return float((pictures @ text / np.maximum(lengths, 1e-9)).mean())
