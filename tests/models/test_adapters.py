"""LoRAs as a person writes them."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file

from text2video_zero.errors import UserError
from text2video_zero.models.adapters import GREATEST_WEIGHT, local_loras, read_adapter, read_adapters, written
from text2video_zero.models.checkpoints import Adapter


@pytest.mark.parametrize(
    ("text", "adapter"),
    [
        ("owner/name", Adapter("owner/name")),
        (" owner/name:0.8 ", Adapter("owner/name", 0.8)),
        ("owner/name@v2:-1", Adapter("owner/name", -1, "v2")),
        ("owner/name/style.safetensors:2", Adapter("owner/name/style.safetensors", 2)),
        ("C:\\loras\\ink.safetensors", Adapter("C:\\loras\\ink.safetensors")),
        ("C:/loras/ink.safetensors:.5", Adapter("C:/loras/ink.safetensors", 0.5)),
        ("/loras/a:b/ink.safetensors", Adapter("/loras/a:b/ink.safetensors")),
    ],
)
def test_a_source_and_a_weight(text, adapter):
    assert read_adapter(text) == adapter


@pytest.mark.parametrize("weight", ["much", "", "nan", "inf", "11", "-1e9"])
def test_a_weight_that_is_none_is_told(weight):
    with pytest.raises(UserError, match="of the LoRA 'owner/name' is no number from -10 to 10: write for example"):
        read_adapter(f"owner/name:{weight}")


def test_blank_lines_say_nothing():
    assert read_adapters(["", "owner/a", "  ", "owner/b:0.5"]) == (Adapter("owner/a"), Adapter("owner/b", 0.5))


@given(
    st.sampled_from(["owner/name", "owner/files/two.safetensors"]),
    st.integers(-1000, 1000),
    st.sampled_from([None, "main", "v1.0"]),
)
def test_what_is_written_is_read_again(source, hundredths, revision):
    adapter = Adapter(source, GREATEST_WEIGHT * hundredths / 1000, revision)
    assert read_adapter(written(adapter)) == adapter


def test_those_in_models_go_by_their_names(tmp_path):
    assert local_loras(tmp_path / "none") == {}
    file = tmp_path / "ink.safetensors"
    save_file({"unet.up.lora_A.weight": torch.zeros(1)}, file)
    save_file({"unet.up.weight": torch.zeros(1)}, tmp_path / "model.safetensors")
    (tmp_path / "broken.safetensors").write_bytes(b"")
    assert local_loras(tmp_path) == {"ink": file}
    adapter = read_adapter("ink:0.5", tmp_path)
    assert adapter == Adapter(str(file), 0.5)
    assert written(adapter) == "ink:0.5"
