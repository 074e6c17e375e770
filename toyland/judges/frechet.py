"""Fréchet distance of two sets of pictures: how far apart they are as a whole, not picture by picture.

Both sets are taken for normal distributions of the judge's pooled features, N(μ, Σ) each. Their distance
(Dowson and Landau 1982; Heusel et al. 2017, "GANs Trained by a Two Time-Scale Update Rule", equation 6) is

    d² = |μ₁ - μ₂|² + tr(Σ₁ + Σ₂ - 2 (Σ₁ Σ₂)^½)

Heusel's Inception features know photographs; Toyland's judge knows this world. So the number compares
Toyland's weights with one another and with nothing else, at equal numbers of pictures: few pictures make it larger.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from toyland.judges.judge import as_seen

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

    from toyland.judges.judge import Judge

__all__ = ["features_of", "frechet_distance"]


@torch.no_grad()
def features_of(judge: Judge, images: np.ndarray, batch: int = 64) -> Tensor:
    """The judge's pooled features, float64 (n, f), of pictures uint8 (n, h, w, 3)."""
    found = [judge.features(as_seen(images[start : start + batch])) for start in range(0, len(images), batch)]
    return torch.cat(found).double()


def _root(matrix: Tensor) -> Tensor:
    """The symmetric root of a symmetric matrix that has no negative eigenvalues but by rounding."""
    values, vectors = torch.linalg.eigh(matrix)
    return vectors * values.clamp(min=0).sqrt() @ vectors.T


def frechet_distance(one: Tensor, other: Tensor) -> float:
    """d² between two sets of features, float64 (n, f) and (m, f), two or more each."""
    between = (one.mean(0) - other.mean(0)).square().sum()
    spread, other_spread = one.T.cov(), other.T.cov()
    # Σ₁ Σ₂ has the eigenvalues of Σ₁^½ Σ₂ Σ₁^½, which is symmetric.
    root = _root(spread)
    shared = torch.linalg.eigvalsh(root @ other_spread @ root).clamp(min=0).sqrt().sum()
    return max(0.0, (between + spread.trace() + other_spread.trace() - 2 * shared).item())
