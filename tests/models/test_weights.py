"""Weights that are looked into without being loaded."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import save_file

from text2video_zero.errors import UserError
from text2video_zero.models.weights import read_shapes


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "model.safetensors"
    save_file({"weight": torch.zeros(3, 5), "bias": torch.zeros(3)}, path)
    return path


def test_shapes_are_read_by_name(file):
    assert read_shapes(file) == {"weight": (3, 5), "bias": (3,)}


def test_a_single_missing_byte_is_seen(file):
    whole = file.read_bytes()
    file.write_bytes(whole[:-1])
    with pytest.raises(UserError, match=f"ends at byte {len(whole) - 1} of {len(whole)}: download it again"):
        read_shapes(file)


@pytest.mark.parametrize("header", [b"[]", b'{"weight": 1}', b'{"weight": {"shape": [1]}}', b"{"])
def test_another_header_is_told_as_broken(file, header):
    file.write_bytes(len(header).to_bytes(8, "little") + header)
    with pytest.raises(UserError, match="is broken or no safetensors file"):
        read_shapes(file)
