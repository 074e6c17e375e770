"""What the decoder's last training sees: crops at faces, where each pixel counts as it is looked at."""

from __future__ import annotations

import numpy as np
import torch

from tests.tiny_toyland import TINY
from toyland.parts.decoder import _Encoded
from toyland.training.dataset import face_discs, render_pictures


def test_a_disc_is_as_large_as_its_face_and_there_is_none_without_one():
    discs = face_discs(np.array([[0.5, 0.25, 0.2], [0, 0, 0]], np.float32), 64)
    assert discs.shape == (2, 64, 64)
    assert abs((discs[0] > 0).sum() / 64**2 - np.pi * 0.2**2) < 0.01
    rows, columns = np.nonzero(discs[0])
    assert abs(rows.mean() / 64 - 0.25) < 0.02
    assert abs(columns.mean() / 64 - 0.5) < 0.02
    assert not discs[1].any()


def test_crops_are_of_one_place_in_latents_pictures_and_weights_and_many_show_faces(tmp_path):
    pictures = render_pictures(tmp_path, 40, 64, 3, shown=TINY.teaches, workers=1)
    # A latent cell that says which pixels of which picture it stands for: the mean of their red.
    red = torch.tensor(pictures.images[..., 0]).float().unfold(1, 8, 8).unfold(2, 8, 8).mean((-2, -1))
    encoded = _Encoded(pictures.images, pictures.masks, pictures.faces, red[:, None])
    latents, images, weights = encoded.crops(32, 32, 4, torch.Generator().manual_seed(0))
    assert latents.shape == (32, 1, 4, 4)
    assert images.shape == (32, 3, 32, 32)
    assert weights.shape == (32, 1, 32, 32)
    seen = (images[:, :1] + 1) * 127.5
    assert torch.allclose(torch.nn.functional.avg_pool2d(seen, 8), latents, atol=1e-2)
    assert weights.amax() > 1  # a subject's pixel counts 1, a face's more
    assert (weights.amax((1, 2, 3)) > 1).float().mean() > 0.25
