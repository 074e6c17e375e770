"""LoRAs and textual inversions as people bring them: applied as what they are, or refused in one sentence."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file, save_file

from model_manager import ModelManager
from tests.lending import loads, take
from tests.runs import sampled
from tests.tiny_models import LORA_LAYER, write_lora, write_lycoris
from text2video_zero.device import copies
from text2video_zero.errors import UserError
from text2video_zero.models.adapters import local_loras
from text2video_zero.models.additions.textual_inversion import Inversions, local_inversions
from text2video_zero.models.checkpoints import Adapter, Checkpoint
from text2video_zero.models.selection import local_models
from text2video_zero.prompts.chunks import chunks_of
from text2video_zero.prompts.encoding import encoded_prompts
from text2video_zero.prompts.syntax import read_prompt
from text2video_zero.requests import Size, TextToVideoRequest

KINDS = ("dora", "loha", "lokr", "full")
ORDER = TextToVideoRequest(prompt="a red fox", frames=2, steps=4, seed=5, size=Size(64, 64))


@pytest.fixture(scope="module")
def manager():
    return ModelManager("cpu")


def layer_of(pipeline):
    return pipeline.components.unet.get_submodule(LORA_LAYER).weight


def added_up(kind, weight, file, strength):
    """What the papers say: W + s·ΔW of LoHa, LoKr and full; DoRA scales each row of it to a length of its own."""
    prefix = f"lora_unet_{LORA_LAYER.replace('.', '_')}."
    part = {name.removeprefix(prefix): tensor for name, tensor in load_file(file).items()}
    if kind == "full":
        return weight + strength * part["diff"]
    if kind == "loha":
        delta = (part["hada_w1_a"] @ part["hada_w1_b"]) * (part["hada_w2_a"] @ part["hada_w2_b"])
    elif kind == "lokr":
        delta = torch.kron(part["lokr_w1"], part["lokr_w2_a"] @ part["lokr_w2_b"])
    else:
        delta = part["lora_up.weight"] @ part["lora_down.weight"]
    moved = weight + delta / 2  # alpha 1, rank 2
    if kind == "dora":
        moved = moved * part["dora_scale"] / moved.norm(dim=1, keepdim=True)
    return weight + strength * (moved - weight)


@pytest.mark.parametrize("strength", [1.0, 0.5])
@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_is_applied_as_what_it_is(manager, tiny_checkpoint, tmp_path, kind, strength):
    file = write_lycoris(tmp_path / f"{kind}.safetensors", kind)
    plain = take(manager, Checkpoint(str(tiny_checkpoint)))
    tuned = take(manager, Checkpoint(str(tiny_checkpoint), adapters=(Adapter(str(file), strength),)))
    expected = added_up(kind, layer_of(plain), file, strength)
    assert torch.allclose(layer_of(tuned), expected, atol=1e-4)
    assert not torch.allclose(layer_of(tuned), layer_of(plain), atol=1e-2)
    others = [name for name, _ in tuned.components.unet.named_parameters() if not name.startswith(LORA_LAYER)]
    theirs = dict(plain.components.unet.named_parameters())
    assert all(torch.equal(tuned.components.unet.get_parameter(name), theirs[name]) for name in others)


@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_is_offered_as_a_lora_and_not_as_a_model(tmp_path, kind):
    file = write_lycoris(tmp_path / f"{kind}.safetensors", kind)
    assert local_models(tmp_path) == {}
    assert local_loras(tmp_path) == {kind: file}


def test_half_precision_is_rounded_once(tiny_checkpoint, tmp_path):
    file = write_lycoris(tmp_path / "loha.safetensors", "loha")
    manager = ModelManager("cpu", dtype="float16")
    both = [Checkpoint(str(tiny_checkpoint), adapters=adapters) for adapters in ((), (Adapter(str(file), 0.7),))]
    plain, tuned = (layer_of(take(manager, checkpoint)) for checkpoint in both)
    assert tuned.dtype == torch.float16
    assert torch.allclose(tuned.float(), added_up("loha", plain.float(), file, 0.7), rtol=1e-3, atol=1e-3)


def test_of_the_text_encoder_too(manager, tiny_checkpoint, tmp_path):
    layer = "lora_te_text_model_encoder_layers_0_mlp_fc1"
    save_file({f"{layer}.diff": torch.ones(32, 16)}, tmp_path / "words.safetensors")
    plain = take(manager, Checkpoint(str(tiny_checkpoint))).components.text_encoder
    checkpoint = Checkpoint(str(tiny_checkpoint), adapters=(Adapter(str(tmp_path / "words.safetensors"), 0.5),))
    tuned = take(manager, checkpoint).components.text_encoder
    weights = [dict(encoder.named_parameters()) for encoder in (tuned, plain)]
    (name,) = (name for name in weights[0] if name.endswith("layers.0.mlp.fc1.weight"))
    assert torch.allclose(weights[0][name], weights[1][name] + 0.5)


def test_under_the_original_codes_names_as_xls_are(manager, tiny_xl, tmp_path):
    layer = "lora_unet_middle_block_1_transformer_blocks_0_attn1_to_q"
    block = "lora_unet_middle_block_0_in_layers_2"
    file = tmp_path / "original.safetensors"
    save_file({f"{layer}.diff": torch.ones(32, 32), f"{block}.diff": torch.ones(32, 32, 3, 3)}, file)
    plain = take(manager, Checkpoint(str(tiny_xl))).components.unet
    tuned = take(manager, Checkpoint(str(tiny_xl), adapters=(Adapter(str(file)),))).components.unet
    for name in (LORA_LAYER, "mid_block.resnets.0.conv1"):
        assert torch.allclose(tuned.get_submodule(name).weight, plain.get_submodule(name).weight + 1)


@pytest.mark.parametrize(
    ("tensors", "sentence"),
    [
        (
            {"lora_unet_no_such_layer.diff": (4, 4)},
            "is for a layer 'lora_unet_no_such_layer', which the model does not",
        ),
        ({f"lora_unet_{LORA_LAYER.replace('.', '_')}.diff": (7, 5)}, "could not be read"),
        ({f"lora_unet_{LORA_LAYER.replace('.', '_')}.dora_scale": (32, 1)}, "in a way that is not known here"),
    ],
)
def test_what_does_not_fit_is_one_sentence(manager, tiny_checkpoint, tmp_path, tensors, sentence):
    file = tmp_path / "odd.safetensors"
    save_file({name: torch.ones(shape) for name, shape in tensors.items()}, file)
    with pytest.raises(UserError, match=sentence):
        take(manager, Checkpoint(str(tiny_checkpoint), adapters=(Adapter(str(file)),)))
    assert take(manager, Checkpoint(str(tiny_checkpoint))).components.unet is not None


def test_a_whole_model_is_no_lora(manager, tiny_checkpoint):
    file = tiny_checkpoint / "unet" / "diffusion_pytorch_model.safetensors"
    with pytest.raises(UserError, match="is no LoRA: give a whole model as the model"):
        take(manager, Checkpoint(str(tiny_checkpoint), adapters=(Adapter(str(file)),)))


def test_one_with_numbers_that_are_not_finite_is_told(manager, tiny_checkpoint, tmp_path):
    for write, name in ((write_lora, "plain"), (lambda path, _: write_lycoris(path, "loha"), "loha")):
        file = write(tmp_path / f"{name}.safetensors", tiny_checkpoint)
        tensors = load_file(file)
        next(iter(tensors.values())).view(-1)[0] = torch.nan
        save_file(tensors, file)
        with pytest.raises(UserError, match=rf"The LoRA '{name}' has numbers that are not finite in"):
            take(manager, Checkpoint(str(tiny_checkpoint), adapters=(Adapter(str(file)),)))


@pytest.mark.parametrize("write", [write_lora, lambda path, _: write_lycoris(path, "loha")], ids=["plain", "loha"])
def test_one_in_eight_bits_is_added_as_its_numbers_are(manager, tiny_checkpoint, tmp_path, write):
    files = [write(tmp_path / name, tiny_checkpoint) for name in ("small.safetensors", "same.safetensors")]
    for file, kind in zip(files, (torch.float8_e4m3fn, torch.float32), strict=True):
        rounded = {name: tensor.to(torch.float8_e4m3fn).to(kind) for name, tensor in load_file(file).items()}
        save_file(rounded, file)
    unets = [
        take(manager, Checkpoint(str(tiny_checkpoint), adapters=(Adapter(str(file)),))).components.unet
        for file in files
    ]
    names = [
        name for name, weight in unets[0].named_parameters() if not torch.equal(weight, unets[1].get_parameter(name))
    ]
    assert names == []
    plain = take(manager, Checkpoint(str(tiny_checkpoint))).components.unet
    assert any(not torch.equal(weight, plain.get_parameter(name)) for name, weight in unets[0].named_parameters())


@pytest.mark.parametrize("kind", ["lora", "loha"])
def test_one_of_no_rank_is_told(manager, tiny_checkpoint, tmp_path, kind):
    layer = f"lora_unet_{LORA_LAYER.replace('.', '_')}"
    names = {"lora": ("lora_down.weight", "lora_up.weight"), "loha": ("hada_w1_b", "hada_w1_a")}[kind]
    shapes = ((0, 32), (32, 0))
    save_file(
        {f"{layer}.{name}": torch.zeros(shape) for name, shape in zip(names, shapes, strict=True)},
        tmp_path / "hollow.safetensors",
    )
    with pytest.raises(UserError, match=r"The LoRA 'hollow' has nothing in lora_unet_"):
        take(manager, Checkpoint(str(tiny_checkpoint), adapters=(Adapter(str(tmp_path / "hollow.safetensors")),)))


@pytest.mark.parametrize("layer", ["transformer.single_transformer_blocks.0.attn.to_q", "prior.blocks.0.to_q"])
def test_one_for_another_kind_of_model_is_told(manager, tiny_checkpoint, tmp_path, layer):
    file = tmp_path / "other.safetensors"
    save_file({f"{layer}.lora_A.weight": torch.ones(2, 32), f"{layer}.lora_B.weight": torch.ones(32, 2)}, file)
    with pytest.raises(UserError, match=r"The LoRA 'other' has nothing for any layer of the model"):
        take(manager, Checkpoint(str(tiny_checkpoint), adapters=(Adapter(str(file)),)))


def test_a_textual_inversion_is_told_as_one_wherever_it_is_given(manager, tiny_checkpoint, tmp_path):
    file = tmp_path / "ink.safetensors"
    save_file({"emb_params": torch.zeros(2, 16)}, file)
    for checkpoint in (Checkpoint(str(file)), Checkpoint(str(tiny_checkpoint), adapters=(Adapter(str(file)),))):
        with pytest.raises(UserError, match=r"The file 'ink.safetensors' is a textual inversion"):
            take(manager, checkpoint)


class TestWeights:
    """The strength of a LoRA changes without the UNet being read anew."""

    def checkpoint(self, model, file, weight):
        return Checkpoint(str(model), adapters=(Adapter(str(file), weight),))

    def test_change_without_reading_the_unet_anew(self, tiny_checkpoint, tmp_path):
        file = write_lycoris(tmp_path / "ink.safetensors", "full")
        manager = ModelManager("cpu")
        with loads() as counts:
            tuned = [take(manager, self.checkpoint(tiny_checkpoint, file, weight)) for weight in (0.8, 0.5, 0.8, -1)]
            plain = take(manager, Checkpoint(str(tiny_checkpoint)))
        assert counts == {"UNet2DConditionModel": 1, "AutoencoderKL": 1, "CLIPTextModel": 1, "ControlNetModel": 0}
        for pipeline, weight in zip(tuned, (0.8, 0.5, 0.8, -1), strict=True):
            assert torch.allclose(layer_of(pipeline), added_up("full", layer_of(plain), file, weight), atol=1e-5)
        weights = load_file(tiny_checkpoint / "unet" / "diffusion_pytorch_model.safetensors")
        assert torch.equal(layer_of(plain), weights[f"{LORA_LAYER}.weight"])

    def test_where_there_is_no_room_for_a_copy_the_one_is_tuned(self, tiny_checkpoint, tmp_path, monkeypatch):
        monkeypatch.setattr(copies, "memory_of", lambda _: (0, 0))
        file = write_lycoris(tmp_path / "ink.safetensors", "full")
        manager = ModelManager("cpu")
        tight = take(manager, self.checkpoint(tiny_checkpoint, file, 0.5))
        assert not manager.is_loaded(Checkpoint(str(tiny_checkpoint)))
        monkeypatch.undo()
        roomy = take(ModelManager("cpu"), self.checkpoint(tiny_checkpoint, file, 0.5))
        assert torch.equal(layer_of(tight), layer_of(roomy))

    def test_a_plain_model_that_is_loaded_is_never_tuned_itself(self, tiny_checkpoint, tmp_path, monkeypatch):
        file = write_lycoris(tmp_path / "ink.safetensors", "full")
        manager = ModelManager("cpu")
        plain = take(manager, Checkpoint(str(tiny_checkpoint)))
        before = layer_of(plain).clone()
        monkeypatch.setattr(copies, "memory_of", lambda _: (0, 0))
        tuned = take(manager, self.checkpoint(tiny_checkpoint, file, 0.5))
        assert torch.equal(layer_of(plain), before)
        assert not torch.equal(layer_of(tuned), before)


class TestInversions:
    @pytest.fixture
    def folder(self, tmp_path):
        """Textual inversions of every format, each of other numbers."""
        folder = tmp_path / "models"
        folder.mkdir()
        generator = torch.Generator().manual_seed(3)
        rows = [torch.randn(count, 16, generator=generator) for count in (2, 1, 3, 1)]
        save_file({"emb_params": rows[0]}, folder / "inkstyle.safetensors")
        torch.save({"string_to_param": {"*": rows[1]}, "name": "old"}, folder / "old-style.pt")
        torch.save({"<cat-toy>": rows[2]}, folder / "cat-toy.bin")
        save_file({"clip_l": rows[3], "clip_g": rows[3] + 1}, folder / "xl.safetensors")
        return folder

    def test_are_offered_by_their_names_and_not_as_models(self, folder):
        assert set(local_inversions(folder)) == {"inkstyle", "old-style", "cat-toy", "xl"}
        assert local_models(folder) == {}
        assert local_loras(folder) == {}
        assert local_inversions(folder / "none") == {}

    def test_are_named_as_words_or_in_brackets(self, folder):
        inversions = Inversions(folder)
        assert list(inversions.named_in("a fox, INKSTYLE, <cat-toy>")) == ["inkstyle", "cat-toy"]
        assert not inversions.named_in("an inkstyles fox in old-styles and inkstyle-like colours")

    def test_each_goes_by_the_name_under_which_it_is_offered(self, tmp_path):
        for name in ("ink.bin", "ink.pt", "caf\udce9.pt"):
            torch.save({"a": torch.zeros(1, 4)}, tmp_path / name)
        offered = local_inversions(tmp_path)
        assert set(offered) == {"ink", "ink.bin", "caf?"}
        for name, path in offered.items():
            assert Inversions(tmp_path).named_in(f"a fox, <{name}>")[name] == path
        assert not Inversions(None).named_in("inkstyle")

    def test_as_comfyui_names_them_say_the_same(self, manager, tiny_checkpoint, folder):
        tokenizer = take(manager, Checkpoint(str(tiny_checkpoint))).components.tokenizer
        both = []
        for prompt in ("a fox, embedding:inkstyle, red", "a fox, inkstyle, red"):
            named = Inversions(folder).named_in(prompt)
            chunks = chunks_of(read_prompt(prompt), tokenizer, named, width=16)
            both.append([token.number for chunk in chunks for token in chunk])
        assert both[0] == both[1]

    def test_in_eight_bits(self, manager, tiny_checkpoint, folder):
        components = take(manager, Checkpoint(str(tiny_checkpoint))).components
        save_file({"emb_params": torch.ones(1, 16, dtype=torch.float8_e4m3fn)}, folder / "small.safetensors")
        assert encoded_prompts(components, "a fox, small", "", Inversions(folder)).isfinite().all()

    @pytest.mark.parametrize("name", ["inkstyle", "old-style", "<cat-toy>"])
    def test_change_what_a_prompt_says_and_leave_no_trace(self, manager, tiny_checkpoint, folder, name):
        components = take(manager, Checkpoint(str(tiny_checkpoint))).components
        prompt = f"a red fox, {name}"
        plain = encoded_prompts(components, prompt, "")
        vocabulary = len(components.tokenizer)
        named = encoded_prompts(components, prompt, "", Inversions(folder))
        assert named.shape == (2, 16, 16)
        # What comes before it is the same, by the causal mask.
        assert torch.allclose(named[:, :4], plain[:, :4], atol=1e-6)
        assert not torch.allclose(named[1, 4:], plain[1, 4:], atol=1e-3)
        assert len(components.tokenizer) == vocabulary
        assert torch.equal(encoded_prompts(components, prompt, ""), plain)
        unnamed = [encoded_prompts(components, "a red fox", "", Inversions(place)) for place in (folder, None)]
        assert torch.equal(*unnamed)

    def test_stand_for_as_many_tokens_as_they_have_rows(self, manager, tiny_checkpoint, folder):
        tokenizer = take(manager, Checkpoint(str(tiny_checkpoint))).components.tokenizer
        rows = load_file(folder / "inkstyle.safetensors")["emb_params"]
        named = Inversions(folder).named_in("a inkstyle, fox")
        (chunk,) = chunks_of(read_prompt("a inkstyle, fox"), tokenizer, named, width=16)
        assert [token.embedding is None for token in chunk] == [True, False, False, True, True]
        assert torch.equal(torch.stack([token.embedding for token in chunk[1:3]]), rows)

    def test_work_on_both_text_encoders_of_xl(self, manager, tiny_xl, folder):
        pipeline = replace(take(manager, Checkpoint(str(tiny_xl))), inversions=Inversions(folder))
        named = replace(ORDER, prompt="a red fox, xl")
        plain = replace(pipeline, inversions=Inversions(None))
        assert not torch.allclose(sampled(named, pipeline), sampled(named, plain))
        assert torch.equal(sampled(ORDER, pipeline), sampled(ORDER, plain))

    def test_of_another_base_or_broken_are_one_sentence(self, manager, tiny_checkpoint, folder):
        components = take(manager, Checkpoint(str(tiny_checkpoint))).components
        save_file({"emb_params": torch.zeros(1, 768)}, folder / "wide.safetensors")
        (folder / "torn.pt").write_bytes((folder / "old-style.pt").read_bytes()[:100])
        (folder / "text.bin").write_bytes(b"no pickle")
        torch.save({"*": Evil()}, folder / "evil.pt")
        save_file({"emb_params": torch.full((1, 16), torch.nan)}, folder / "nan.safetensors")
        for name in ("wide", "torn", "text", "evil", "nan"):
            with pytest.raises(UserError, match=rf"The textual inversion '{name}.*(another base|cannot be read)"):
                encoded_prompts(components, f"a fox, {name}", "", Inversions(folder))


class Evil:
    def __reduce__(self):
        return exec, ("raise AssertionError('code of a pickle was run')",)
