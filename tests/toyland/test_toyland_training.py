"""The training scripts at a tiny size: each stage runs, resumes exactly, and exports what loads."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL, StableDiffusionPipeline
from transformers import CLIPProcessor, CLIPTokenizer

from tests.tiny_toyland import TINY
from toyland.judges.evaluate import TABLE_HEAD, Judges, prompt_scenes, reconstruction_quality, sample, score
from toyland.judges.judge import HEADS, load_judge, verdicts
from toyland.training import train as train_module
from toyland.training.config import PRESETS, Plan, hurried
from toyland.training.dataset import is_held_out, render_pictures, scenes
from toyland.training.loop import progress_of, train
from toyland.training.texts import corpus
from toyland.training.tokenizer import build_tokenizer
from toyland.training.train import STAGES, Family, run_stage
from toyland.world.captions import VOCABULARY, caption


@pytest.fixture(scope="module")
def family(tmp_path_factory):
    root = tmp_path_factory.mktemp("toyland")
    made = Family(TINY, root / "work", root / "out", "cpu")
    for stage in STAGES.values():
        stage(made)
    return made


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    return build_tokenizer(corpus(scenes(2000, 0), 0), 48, tmp_path_factory.mktemp("tokenizer"))


def _load(folder):
    pipeline = StableDiffusionPipeline.from_pretrained(folder, dtype=torch.float32)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def test_every_word_of_the_captions_is_one_token(tokenizer):
    rng = np.random.default_rng(1)
    words = {word for scene in scenes(500, 2) for word in caption(scene, rng).replace(",", "").split()}
    assert {word for word in words if len(tokenizer(word).input_ids) != 3} == set()


@pytest.mark.parametrize("text", ["", "żółć 東京 🐼", "Quetzalcoatl's \t zeppelin!? 42", "<|endoftext|>", "é" * 400])
def test_the_tokenizer_takes_any_text(tokenizer, text):
    ids = tokenizer(text, padding="max_length", max_length=48, truncation=True).input_ids
    assert len(ids) == 48
    assert ids[0] == tokenizer.bos_token_id
    assert ids[-1] == tokenizer.eos_token_id


def test_the_tokenizer_loses_nothing_but_case_and_spacing(tokenizer):
    for text in ("żółć 東京 🐼 и", "an unheard of word"):
        assert tokenizer.decode(tokenizer(text).input_ids, skip_special_tokens=True) == text


def test_held_out_combinations_are_one_in_twelve_and_never_trained_on():
    everything = scenes(3000, 5, held_out=None)
    assert 0.05 < np.mean([is_held_out(scene) for scene in everything]) < 0.12
    assert not any(is_held_out(scene) for scene in scenes(300, 5))
    assert {scene.subject for scene in scenes(500, 5, held_out=True)} == set(VOCABULARY["subjects"])


def test_pictures_are_rendered_once(tmp_path):
    first = render_pictures(tmp_path, 3, 32, 0, workers=1)
    stamp = (tmp_path / "images.npy").stat().st_mtime_ns
    again = render_pictures(tmp_path, 3, 32, 0, workers=1)
    assert (tmp_path / "images.npy").stat().st_mtime_ns == stamp
    assert np.array_equal(first.images, again.images)
    assert first.scenes == again.scenes


def _weights_after(tmp_path, name, stops):
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.SiLU(), torch.nn.Linear(8, 4))
    plan = Plan(steps=6, batch=4, rate=1e-2, warmup=2, ema=0.5)

    def loss(generator, _progress):
        wanted = torch.randn(4, 4, generator=generator)
        return ((model(wanted) - wanted) ** 2).mean()

    for stop in stops:
        torch.manual_seed(0)
        for layer in (model[0], model[2]):
            layer.reset_parameters()
        train(model, loss, plan, tmp_path / name / "checkpoint.pt", seed=1, stop_at=stop)
    return model.state_dict()


def test_a_resumed_run_ends_with_the_weights_of_an_uninterrupted_one(tmp_path):
    whole = _weights_after(tmp_path, "whole", [0])
    resumed = _weights_after(tmp_path, "resumed", [1, 4, 0])
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)


def test_a_wall_clock_budget_sets_the_progress():
    plan = Plan(steps=10, batch=1, rate=1.0, minutes=2)
    assert progress_of(plan, 9, 30.0) == pytest.approx(0.25)
    assert progress_of(plan, 1, 500.0) == 1
    assert hurried(PRESETS["cpu"], {"unet": 3.0}).plans["unet"].minutes == 3.0


def test_the_quick_recipe_plans_every_part_of_the_cpu_recipe_in_its_shapes_and_leaves_time_for_the_rest():
    slow, quick = PRESETS["cpu"], PRESETS["quick-gpu"]
    assert set(quick.plans) == set(slow.plans) == set(TINY.plans)
    assert sum(plan.minutes for plan in quick.plans.values()) <= 8.5
    assert (quick.autoencoder, quick.clip, quick.unet) == (slow.autoencoder, slow.clip, slow.unet)


def test_complete_stages_are_skipped(family):
    again = Family(family.recipe, family.work, family.out, "cpu")
    before = (family.work / "autoencoder" / "checkpoint.pt").stat().st_mtime_ns
    weights = again.autoencoder.half().state_dict()
    assert (family.work / "autoencoder" / "checkpoint.pt").stat().st_mtime_ns == before
    assert all(torch.equal(value.half(), weights[name]) for name, value in family.autoencoder.state_dict().items())


def test_a_family_goes_on_in_the_latents_of_an_earlier_one(family, tmp_path):
    further = Family(family.recipe, tmp_path, tmp_path / "out", "cpu", start=family.out)
    assert further.autoencoder.config.scaling_factor == further.earlier.vae.config.scaling_factor
    kept = AutoencoderKL.from_pretrained(family.out / "vae", dtype=torch.float32).state_dict()
    assert all(torch.equal(kept[name], value) for name, value in further.autoencoder.state_dict().items())


def test_the_exported_folder_is_a_stable_diffusion_pipeline(family):
    pipeline = _load(family.out)
    assert pipeline.unet.config.cross_attention_dim == pipeline.text_encoder.config.hidden_size
    assert 2 ** (len(pipeline.vae.config.block_out_channels) - 1) == 8
    assert pipeline.scheduler.config.steps_offset == 1
    images = sample(pipeline, ["a red panda in the snow", "🐼"], 2, 7.5, 0)
    assert images.shape == (2, 64, 64, 3)
    assert images.dtype == np.uint8
    assert np.array_equal(images, sample(pipeline, ["a red panda in the snow", "🐼"], 2, 7.5, 0))
    assert max(path.stat().st_size for path in family.out.rglob("*") if path.is_file()) < 10_000_000


def test_the_exported_tokenizer_is_also_in_the_older_format(family):
    folder = family.out / "tokenizer"
    vocabulary = json.loads((folder / "vocab.json").read_text("utf-8"))
    merges = (folder / "merges.txt").read_text("utf-8").splitlines()[1:]
    assert vocabulary == CLIPTokenizer.from_pretrained(folder).get_vocab()
    assert all("".join(merge.split()) in vocabulary for merge in merges)


def test_the_exported_text_encoder_is_the_one_trained_with_the_unet(family):
    state = torch.load(family.work / "unet" / "checkpoint.pt", weights_only=True)["average"]
    weights = _load(family.out).text_encoder.state_dict()
    assert all(torch.allclose(value, state[f"text_encoder.{name}"], atol=1e-3) for name, value in weights.items())
    assert any(
        not torch.allclose(value, family.clip.text_model.state_dict()[name].float(), atol=1e-4)
        for name, value in weights.items()
    )


def test_last_the_unet_alone_goes_on_and_is_what_is_exported(family):
    checkpoints = (family.work / part / "checkpoint.pt" for part in ("unet", "unet-right"))
    first, last = (torch.load(path, weights_only=True)["average"] for path in checkpoints)
    same = {name: torch.equal(value, first[name]) for name, value in last.items()}
    assert all(equal for name, equal in same.items() if not name.startswith("unet."))
    assert not any(equal for name, equal in same.items() if name.startswith("unet.conv_in."))
    unet = _load(family.out).unet.state_dict()
    assert all(torch.equal(value, last[f"unet.{name}"].half().float()) for name, value in unet.items())


def test_last_it_sees_those_alone_that_face_right_and_people_more_often(family, monkeypatch):
    again = Family(family.recipe, family.work, family.out, "cpu")
    monkeypatch.setattr(train_module, "train_unet", lambda *arguments: seen.append(arguments))
    seen = []
    again.train_unet_on_right()
    facing = [
        number
        for number, scene in enumerate(family.pictures.scenes)
        if scene.facing > 0
        for _ in range(3 if scene.subject == "person" else 1)
    ]
    assert 0 < len(set(facing)) < min(len(facing), len(family.pictures.scenes))
    _, plan, latents, tokens, reading, *_ = seen[0]
    assert plan == family.recipe.plans["unet-right"]
    assert torch.equal(latents.values, family.latents.values[facing])
    assert len(latents.masks) == len(tokens) == len(facing)
    assert reading is None


def test_the_exported_clip_has_a_processor(family):
    processor = CLIPProcessor.from_pretrained(family.out / "clip")
    picture = np.zeros((64, 64, 3), np.uint8)
    ready = processor(text=["a panda"], images=[picture], return_tensors="pt", padding="max_length")
    assert ready.pixel_values.shape == (1, 3, 64, 64)


def test_latents_have_unit_variance_and_the_words_are_written_down(family):
    assert family.latents.values.float().std().item() == pytest.approx(1, abs=0.05)
    known = json.loads((family.out / "vocabulary.json").read_text())
    assert set(known["subjects"]) == set(VOCABULARY["subjects"])


def test_the_judge_gives_a_class_for_each_head(family):
    judge = load_judge(family.out / "judge")
    images = np.zeros((3, 64, 64, 3), np.uint8)
    assert {name: len(found) for name, found in verdicts(judge, images).items()} == dict.fromkeys(HEADS, 3)
    wanted = prompt_scenes(24, 0, held_out=True)
    assert {scene.subject for scene in wanted} == set(VOCABULARY["subjects"])
    judges = Judges.load(family.out)
    found = score(judges, images, wanted[:3], images)
    assert set(found.right) == {*HEADS, "all"}
    assert found.sound is None, "its judge comes later"
    assert found.distance == pytest.approx(0, abs=1e-6)
    assert found.row("black").startswith("| black | 3 |")
    assert found.row("black").count("|") == TABLE_HEAD.splitlines()[0].count("|")


def test_reconstructions_are_measured(family):
    back, quality = reconstruction_quality(_load(family.out), family.pictures)
    assert back.shape == family.pictures.images.shape
    assert 0 < quality["L1"] < 1
    assert quality["sharpness"] > 0  # 1 is as sharp as the renders; an untrained decoder makes noise


@pytest.mark.slow
def test_two_workers_train_one_model(family, tmp_path):
    shared = Family(replace(TINY, plans=dict(TINY.plans)), tmp_path, tmp_path / "out", "cpu")
    run_stage("pictures", shared, 2)
    run_stage("autoencoder", shared, 2)
    state = torch.load(tmp_path / "autoencoder" / "checkpoint.pt", weights_only=True)
    assert state["step"] == 2
    assert state["progress"] == 1
    alone = torch.load(family.work / "autoencoder" / "checkpoint.pt", weights_only=True)
    assert any(not torch.equal(value, alone["module"][name]) for name, value in state["module"].items())
