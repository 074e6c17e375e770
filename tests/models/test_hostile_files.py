"""Files of any content in the place of models: each is one sentence, and none keeps the app from starting."""

from __future__ import annotations

import json
import os
import shutil
import struct

import pytest
import torch
from safetensors.torch import save_file

from model_manager import ModelManager
from tests.lending import take
from tests.tiny_models import write_lora
from text2video_zero.errors import UserError
from text2video_zero.models.adapters import local_loras, read_adapter
from text2video_zero.models.checkpoints import Checkpoint, short_name
from text2video_zero.models.files.configurations import read_json
from text2video_zero.models.hub import Hub
from text2video_zero.models.native_size import native_size
from text2video_zero.models.selection import find_checkpoint, local_models
from text2video_zero.models.vocabulary import Vocabulary
from text2video_zero.models.weights import LARGEST_HEADER, MOST_TENSORS, UNET_INPUT, read_header
from text2video_zero.requests import Size


@pytest.fixture(scope="module")
def manager():
    return ModelManager("cpu")


def header(text):
    raw = text if isinstance(text, bytes) else text.encode()
    return struct.pack("<Q", len(raw)) + raw


HOSTILE_HEADERS = {
    "a list": header("[]"),
    "null": header("null"),
    "a number": header("3"),
    "NaN": header('{"a": {"dtype": "F32", "shape": [NaN], "data_offsets": [0, 4]}}'),
    "infinity": header('{"a": {"dtype": "F32", "shape": [4], "data_offsets": [0, Infinity]}}'),
    "true": header('{"a": {"dtype": "F32", "shape": [true], "data_offsets": [0, 4]}}'),
    "deep": header("[" * 200_000),
    "deep in a tensor": header('{"a": ' + '{"a": ' * 100_000),
    "without offsets": header('{"a": {"dtype": "F32", "shape": [4]}}'),
    "one offset": header('{"a": {"dtype": "F32", "shape": [4], "data_offsets": [0]}}'),
    "offsets of text": header('{"a": {"dtype": "F32", "shape": [4], "data_offsets": ["0", "4"]}}'),
    "negative": header('{"a": {"dtype": "F32", "shape": [-4], "data_offsets": [0, 4]}}'),
    "shape of text": header('{"a": {"dtype": "F32", "shape": "4", "data_offsets": [0, 4]}}'),
    "no text": header(b"\xff\xfe\xfd"),
    "longer than the format allows": struct.pack("<Q", 2**63) + b"{}",
    "nothing": b"",
    "six bytes": b"123456",
    "beyond its end": header('{"a": {"dtype": "F32", "shape": [9], "data_offsets": [0, 36]}}'),
    "too many tensors": header(
        json.dumps({str(n): {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]} for n in range(MOST_TENSORS + 1)})
    ),
    "600,000 empty tensors": header(
        "{" + ",".join(f'"{n:07}":{{"dtype":"F32","shape":[0],"data_offsets":[0,0]}}' for n in range(600_000)) + "}"
    ),
    "a list of metadata": header(
        '{"__metadata__": [1, 2], "a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}'
    ),
}


class TestHostileFiles:
    @pytest.mark.parametrize("name", HOSTILE_HEADERS)
    def test_a_header_is_one_sentence_and_no_list_of_models_breaks_of_it(self, name, tmp_path, manager):
        file = tmp_path / "bad.safetensors"
        file.write_bytes(HOSTILE_HEADERS[name])
        with pytest.raises(UserError, match=r"^The model file 'bad\.safetensors'") as caught:
            take(manager, Checkpoint(str(file)))
        assert str(caught.value).rstrip(".").count(". ") == 0
        assert set(local_models(tmp_path)) == {"bad"}
        assert local_loras(tmp_path) == {}

    def test_a_header_that_is_longer_than_any_models_is_not_even_parsed(self, tmp_path):
        file = tmp_path / "long.safetensors"
        file.write_bytes(struct.pack("<Q", LARGEST_HEADER + 1) + b" " * 100)
        with pytest.raises(UserError, match="is broken or no safetensors file"):
            read_header(file)

    @pytest.mark.parametrize("content", ["[]", "null", "{", '"text"', "[" * 100_000, '{"_class_name": []}', "\x00"])
    def test_an_index_of_any_content_is_one_sentence(self, content, manager, tiny_checkpoint, tmp_path):
        folder = shutil.copytree(tiny_checkpoint, tmp_path / "bad")
        (folder / "model_index.json").write_text(content)
        with pytest.raises(UserError, match=r"^The (file bad/model_index\.json|folder 'bad' holds a)"):
            take(manager, Checkpoint(str(folder)))
        assert set(local_models(tmp_path)) == {"bad"}

    @pytest.mark.parametrize(
        "content", ["[]", '{"subjects": []}', '{"subjects": {"fox": 3}}', "{", '{"a": {"b": [1]}}']
    )
    def test_a_vocabulary_of_any_content_is_one_sentence(self, content, tmp_path):
        (tmp_path / "vocabulary.json").write_text(content)
        with pytest.raises(UserError, match=r"vocabulary\.json"):
            Vocabulary.read(tmp_path)

    @pytest.mark.parametrize("content", ["[]", "null", '{"sample_size": "x"}', '{"sample_size": [1, 2, 3]}', "{"])
    def test_a_unets_configuration_of_any_content_is_no_traceback(self, content, tiny_checkpoint, tmp_path, manager):
        folder = shutil.copytree(tiny_checkpoint, tmp_path / "bad")
        (folder / "unet" / "config.json").write_text(content)
        try:
            assert native_size(Checkpoint(str(folder)), Hub()) == Size(512, 512)
        except UserError as error:
            assert "unet/config.json" in str(error)  # noqa: PT017 - either is right
        with pytest.raises(UserError):
            take(manager, Checkpoint(str(folder)))

    @pytest.mark.parametrize("part", ["unet", "scheduler", "tokenizer"])
    @pytest.mark.parametrize("entry", [5, None, ["os"], ["os", ["system"]], {"os": "system"}])
    def test_an_index_whose_parts_are_anything_is_one_sentence(self, part, entry, manager, tiny_checkpoint, tmp_path):
        folder = shutil.copytree(tiny_checkpoint, tmp_path / "bad")
        index = json.loads((folder / "model_index.json").read_text())
        (folder / "model_index.json").write_text(json.dumps(index | {part: entry}))
        with pytest.raises(UserError, match=rf"The folder 'bad' has .* for its {part} in model_index\.json"):
            take(manager, Checkpoint(str(folder)))

    @pytest.mark.parametrize(
        ("part", "name", "value"),
        [
            ("unet", "attention_head_dim", 0),
            ("unet", "block_out_channels", "wide"),
            ("unet", "down_block_types", ["os.system"]),
            ("unet", "norm_num_groups", 0),
            ("unet", "cross_attention_dim", 10**12),
            ("vae", "block_out_channels", []),
            ("vae", "latent_channels", "four"),
            ("text_encoder", "hidden_size", "x"),
            ("text_encoder", "num_attention_heads", 0),
            ("text_encoder", "hidden_act", "no such thing"),
        ],
    )
    def test_a_network_that_nobody_could_build_is_one_sentence(
        self, part, name, value, tiny_checkpoint, tmp_path, manager
    ):
        folder = shutil.copytree(tiny_checkpoint, tmp_path / "bad")
        config = folder / part / "config.json"
        config.write_text(json.dumps(json.loads(config.read_text()) | {name: value}))
        with pytest.raises(UserError, match=r"'bad'") as caught:
            take(manager, Checkpoint(str(folder)))
        assert "\n" not in str(caught.value)

    @pytest.mark.parametrize("name", ["index", "index.fp16"])
    @pytest.mark.parametrize(
        "content",
        [
            *["[]", "{}", '{"weight_map": []}', '{"weight_map": {"a": 3}}', "{"],
            *['{"weight_map": {"a": "b"}}', '{"metadata": [], "weight_map": {"a": "b"}}'],
            *[f'{{"metadata": {{}}, "weight_map": {files}}}' for files in ("{}", '{"a": ".."}', '{"a": ""}')],
            '{"metadata": {}, "weight_map": {"a": "../vae/diffusion_pytorch_model.safetensors"}}',
        ],
    )
    def test_a_list_of_files_of_any_content_is_one_sentence(self, content, name, tiny_checkpoint, tmp_path, manager):
        folder = shutil.copytree(tiny_checkpoint, tmp_path / "bad")
        weights = folder / "unet" / "diffusion_pytorch_model.safetensors"
        weights.rename(weights.with_name("diffusion_pytorch_model-00001-of-00001.safetensors"))
        (folder / "unet" / f"diffusion_pytorch_model.safetensors.{name}.json").write_text(content)
        with pytest.raises(
            UserError, match=rf"'bad' could not be read \(unet/diffusion.*{name}\.json holds no JSON object"
        ):
            take(manager, Checkpoint(str(folder)))

    def test_names_in_an_older_encoding_are_offered_as_they_can_be_shown(self, tmp_path, tiny_checkpoint):
        whole = {UNET_INPUT: torch.zeros(1, 4)}
        for name in ("mod\udce9le", "ink\udce9"):
            write = save_file if name.startswith("mod") else lambda _, path: write_lora(path, tiny_checkpoint)
            plain = tmp_path / "new.safetensors"
            write(whole, plain)
            plain.rename(tmp_path / f"{name}.safetensors")
        models, loras = local_models(tmp_path), local_loras(tmp_path)
        assert (set(models), set(loras)) == ({"mod?le"}, {"ink?"})
        assert find_checkpoint("mod?le", tmp_path) == models["mod?le"]
        assert read_adapter("ink?:0.5", tmp_path).source == str(loras["ink?"])
        assert short_name(models["mod?le"].source) == "mod?le"

    def test_what_is_no_file_is_not_opened(self, tmp_path):
        os.mkfifo(tmp_path / "pipe.safetensors")
        os.mkfifo(tmp_path / "config.json")
        with pytest.raises(UserError, match=r"config\.json holds no settings of a model"):
            read_json(tmp_path / "config.json")
        (tmp_path / "folder.safetensors").mkdir()
        (tmp_path / "loop.safetensors").symlink_to(tmp_path / "loop.safetensors")
        (tmp_path / "gone.safetensors").symlink_to(tmp_path / "nowhere")
        assert local_models(tmp_path) == {}
        assert local_loras(tmp_path) == {}
