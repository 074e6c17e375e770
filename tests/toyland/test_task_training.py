"""What is trained on Toyland's base model: data from ground truth, each stage at a tiny size, the measures."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from diffusers import (
    AutoencoderKL,
    ControlNetModel,
    StableDiffusionPipeline,
    UNet2DConditionModel,
)

from model_manager import ModelManager
from tests.runs import sampled
from tests.tiny_toyland import TINY
from text2video_zero.models.catalogue import TOYLAND_FOLDER
from text2video_zero.models.checkpoints import Adapter, Checkpoint
from text2video_zero.requests import Size, TextToVideoRequest
from toyland.__main__ import main as toyland_main
from toyland.judges import evaluate, evaluate_tasks
from toyland.judges.evaluate_tasks import edge_f1, rank_correlation
from toyland.judges.judge import LOOK_HEADS, load_judge, verdicts
from toyland.judges.reader import load_reader, read
from toyland.parts.controls import CONTROLS, control_maps
from toyland.parts.editor import build_editor
from toyland.parts.style import STYLES, styled_pictures, train_style
from toyland.training import train, train_tasks
from toyland.training.dataset import is_held_out, render_pictures, scenes
from toyland.training.train import STAGES as BASE_STAGES
from toyland.training.train import Family
from toyland.training.train_tasks import STAGES, TaskModels
from toyland.world.captions import plain_caption
from toyland.world.edits import EDITS, instructions, random_edit, render_edit, snowed
from toyland.world.looks import LOOKS
from toyland.world.scene import render


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    root = tmp_path_factory.mktemp("toyland")
    base = Family(TINY, root / "work", root / "out", "cpu")
    for stage in BASE_STAGES.values():
        stage(base)
    before = {path.name: path.read_bytes() for path in (root / "out" / "vae").iterdir()}
    made = TaskModels(TINY, root / "work", root / "out", "cpu")
    made.vae_before = before
    for stage in STAGES.values():
        stage(made)
    return made


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pictures")
    return render_pictures(folder, 40, 64, 3, shown=TINY.teaches, workers=1)


def test_only_what_the_unet_is_taught_is_shown():
    seen = scenes(200, 1, shown=lambda scene: scene.action == "walking" and scene.facing == 1)
    assert {(scene.action, scene.facing) for scene in seen} == {("walking", 1)}


@pytest.mark.parametrize("kind", CONTROLS)
def test_control_maps_are_pictures_of_the_ground_truth(kind, pictures):
    rows = np.arange(len(pictures.images))
    maps = control_maps(kind, pictures, rows)
    assert maps.shape == (len(rows), 64, 64, 3)
    assert maps.dtype == np.uint8
    assert all(one.max() > 100 for one in maps)
    if kind == "pose":
        lit = maps.any(-1)
        inside = [(one & (mask > 0)).sum() / one.sum() for one, mask in zip(lit, pictures.masks[rows], strict=True)]
        assert np.mean(inside) > 0.9  # skeletons lie within their subjects
    if kind == "depth":
        assert np.array_equal(maps[..., 0], pictures.depths)


def test_a_look_keeps_the_shape_and_changes_the_picture(pictures):
    for look in LOOKS.values():
        seen = look(pictures.images[0], pictures.masks[0] / 255)
        assert seen.shape == pictures.images[0].shape
        assert seen.dtype == np.uint8
        assert np.abs(seen.astype(int) - pictures.images[0]).mean() > 5


def test_an_edit_changes_what_it_names_and_nothing_else():
    rng = np.random.default_rng(0)
    seen = set()
    for scene in scenes(300, 4):
        edit = random_edit(scene, rng)
        seen.add(edit.kind)
        changed = {
            name
            for name in ("subject", "color", "place", "action", "x", "y", "height", "phase", "facing", "detail_seed")
            if getattr(edit.before, name) != getattr(edit.after, name)
        }
        assert changed == ({edit.kind} if edit.kind in ("subject", "color", "place") else set())
        assert not is_held_out(edit.after)
        assert len(set(instructions(edit))) == 4
        assert not any("{" in text for text in instructions(edit))
    assert seen == set(EDITS)


def test_a_recolored_picture_differs_only_at_the_subject():
    rng = np.random.default_rng(1)
    edit = next(e for e in (random_edit(s, rng) for s in scenes(100, 5)) if e.kind == "color")
    image, mask = render_edit(edit, 64)
    before = render(edit.before, 64)
    assert np.array_equal(image[mask == 0], before.image[mask == 0])
    assert not np.array_equal(image, before.image)


def test_the_editor_starts_as_the_base_models_unet(models):
    unet = StableDiffusionPipeline.from_pretrained(models.out, dtype=torch.float32).unet
    editor = build_editor(unet)
    latents, picture, words = torch.randn(2, 8, 8, 8), torch.randn(2, 8, 8, 8), torch.randn(2, 48, 16)
    with torch.no_grad():
        ours = editor(torch.cat([latents, picture], 1), 500, words).sample
        theirs = unet(latents, 500, words).sample
    assert torch.equal(ours, theirs)


def test_each_style_is_learned_from_some_pictures_of_each_subject(pictures):
    for style in STYLES.values():
        rows, images = styled_pictures(pictures, style, 0)
        assert len(set(rows.tolist())) == len(images)
        assert {pictures.scenes[row].subject for row in rows} == {scene.subject for scene in pictures.scenes}
        again, _ = styled_pictures(pictures, style, 0)
        assert np.array_equal(rows, again)


def test_only_the_decoder_was_trained_further(models):
    before = Family(TINY, models.work, models.out, "cpu").autoencoder.half().state_dict()
    after = AutoencoderKL.from_pretrained(models.out / "vae", dtype=torch.float16)
    same = {name: torch.equal(value, before[name]) for name, value in after.state_dict().items()}
    assert all(equal for name, equal in same.items() if name.startswith(("encoder", "quant_conv")))
    assert not any(equal for name, equal in same.items() if name.startswith("decoder.conv_in"))
    assert after.config.scaling_factor == models.base.vae.config.scaling_factor


def test_what_is_exported_is_what_diffusers_loads(models):
    for kind in CONTROLS:
        controlnet = ControlNetModel.from_pretrained(models.out / f"controlnet-{kind}")
        assert controlnet.config.cross_attention_dim == 16
    editor = UNet2DConditionModel.from_pretrained(models.out / "instruct-pix2pix")
    assert editor.config.in_channels == 16
    UNet2DConditionModel.from_pretrained(models.out / "style-sunset")
    pipeline = StableDiffusionPipeline.from_pretrained(models.out, dtype=torch.float32)
    before = {name: value.clone() for name, value in pipeline.unet.state_dict().items()}
    pipeline.load_lora_weights(models.out / "style-sketch")
    pipeline.fuse_lora()
    pipeline.unload_lora_weights()
    assert any(not torch.equal(value, before[name]) for name, value in pipeline.unet.state_dict().items())


def test_some_of_a_style_s_batches_meet_the_controlnet_which_stays_as_it_is(models, tmp_path):
    edges, met = ControlNetModel.from_pretrained(models.out / "controlnet-edge"), []
    edges.register_forward_hook(lambda *_: met.append(1))
    before = {name: value.clone() for name, value in edges.state_dict().items()}
    recipe = replace(TINY, plans={"style-sketch": replace(TINY.plans["style-sketch"], steps=12)})
    base = StableDiffusionPipeline.from_pretrained(models.out, dtype=torch.float32)
    train_style("style-sketch", recipe, base, edges, models.pictures, models.latents, tmp_path / "checkpoint.pt", "cpu")
    assert 0 < len(met) < 12
    assert all(torch.equal(value, before[name]) for name, value in edges.state_dict().items())


def test_the_student_is_a_lora_that_the_engine_samples_with_in_four_steps(models):
    source = models.out / "student" / "pytorch_lora_weights.safetensors"
    request = TextToVideoRequest(
        prompt="a red panda", frames=2, steps=4, seed=3, size=Size(64, 64), sampler="LCM", guidance_scale=1.0
    )
    manager = ModelManager("cpu")
    with manager.lend(Checkpoint(str(models.out), adapters=(Adapter(str(source)),))) as pipeline:
        assert sampled(request, pipeline).isfinite().all()


@pytest.mark.slow
def test_models_stand_in_one_table_with_their_students(models, tmp_path, capsys):
    report, grid = tmp_path / "report.json", tmp_path / "grid.png"
    plain = tmp_path / "plain"
    shutil.copytree(models.out, plain, ignore=shutil.ignore_patterns("student", "defect-judge"))
    options = {"--model": plain, "--prompts": 32, "--steps": 1, "--guidance-scale": 1, "--renders": 4}
    options |= {"--report": report, "--grid": grid}
    argv = [str(part) for option in options.items() for part in option]
    evaluate.main([*argv[:2], str(models.out), *argv[2:]])
    rows = json.loads(report.read_text())
    assert {name.partition(", ")[2] for name in rows if "mistakes" not in name and "combinations" not in name} == {
        "DDIM 1, guidance 1",
        "student, 4 steps",
    }
    assert len([name for name in rows if "student" in name]) == 4, "of the one model that has one"
    assert all(0 <= row["sound"] <= 1 for row in rows.values() if "sound" in row)
    assert grid.exists()
    told = capsys.readouterr().out
    assert "Fréchet distance |" in told
    assert told.count("reconstructions |") == 2


def test_complete_task_models_are_not_trained_again(models):
    stamps = {part: (models.work / part / "checkpoint.pt").stat().st_mtime_ns for part in ("decoder", "reader")}
    again = TaskModels(TINY, models.work, models.out, "cpu")
    again.train_decoder()
    again.train_reader()
    assert stamps == {part: (models.work / part / "checkpoint.pt").stat().st_mtime_ns for part in stamps}


def test_the_embedded_look_judge_sees_snow_wherever_it_falls_and_still_sees_where_that_is():
    snowy = [after for scene in scenes(60, seed=9, held_out=None) if (after := snowed(scene))]
    seen = verdicts(load_judge(TOYLAND_FOLDER / "look-judge"), np.stack([render(scene).image for scene in snowy]))
    wanted = {
        "look": [LOOK_HEADS["look"].index("snowfall")] * len(snowy),
        "place": [LOOK_HEADS["place"].index(scene.place) for scene in snowy],
    }
    for head, numbers in wanted.items():
        assert (seen[head].numpy() == numbers).mean() > 0.95, head


def test_the_look_judge_and_the_reader_answer_for_each_picture(models, pictures):
    seen = verdicts(load_judge(models.out / "look-judge"), pictures.images[:5])
    assert {name: len(found) for name, found in seen.items()} == dict.fromkeys(LOOK_HEADS, 5)
    reading = read(load_reader(models.out / "reader"), pictures.images[:5])
    assert reading.keypoints.shape == (5, 18, 2)
    assert 0 <= reading.keypoints.min() <= reading.keypoints.max() <= 1
    assert reading.mask.shape == reading.depth.shape == (5, 64, 64)


def test_edges_are_right_where_the_others_are_near():
    wanted = np.zeros((32, 32), np.uint8)
    wanted[10, 4:28] = 255
    shifted, far = np.roll(wanted, 1, axis=0), np.roll(wanted, 12, axis=0)
    assert edge_f1(wanted, wanted) == pytest.approx(1)
    assert edge_f1(shifted, wanted) == pytest.approx(1)
    assert edge_f1(far, wanted) == 0
    assert edge_f1(np.zeros_like(wanted), wanted) == 0
    both = np.maximum(wanted, far)
    assert edge_f1(both, wanted) == pytest.approx(2 / 3, abs=0.01)


def test_depths_are_compared_by_their_order():
    depth = np.random.default_rng(0).random((8, 8))
    assert rank_correlation(depth**3, depth) == pytest.approx(1)
    assert rank_correlation(-depth, depth) == pytest.approx(-1)


@pytest.mark.slow
def test_the_tables_are_made_of_every_task(models, tmp_path, capsys):
    report = tmp_path / "report.json"
    options = {"--model": models.out, "--report": report, "--grid-folder": tmp_path / "grids"}
    options |= {"--pictures": 12, "--steps": 2}
    evaluate_tasks.main([str(part) for option in options.items() for part in option])
    tables = json.loads(report.read_text())
    assert set(tables) == {*CONTROLS, "instruct-pix2pix", "styles"}
    assert tables["edge"]["the renders themselves"]["edge F1"] == pytest.approx(1)
    assert {path.stem for path in (tmp_path / "grids").iterdir()} == set(tables)
    assert "| keypoints within 5 % |" in capsys.readouterr().out


def test_captions_of_the_tables_name_what_is_seen():
    scene = scenes(1, 0)[0]
    assert all(word in plain_caption(scene) for word in (scene.subject, scene.color))


@pytest.mark.slow
def test_one_command_makes_the_family_and_its_tables_and_then_has_nothing_left_to_train(tmp_path, capsys):
    out, work = tmp_path / "out", tmp_path / "work"
    argv = ["--preset", "smoke", "--device", "cpu", "--out", str(out), "--work-dir", str(work)]
    toyland_main(argv)
    told = capsys.readouterr().out
    for title in ("| defect |", "| model and setting |", "| edge |", "| pose |", "| depth |", "| instruct-pix2pix |"):
        assert title in told
    assert f"| {out}, student, 4 steps | 24 |" in told
    assert (out / "grid.png").exists()
    assert {path.name for path in (out / "tables").iterdir()} >= {"base.json", "tasks.json", "edge.png"}
    assert max(path.stat().st_size for path in out.rglob("*") if path.is_file()) < 10_000_000
    trained = {path: path.stat().st_mtime_ns for path in work.rglob("checkpoint.pt")}
    assert {path.parent.name for path in trained} == set(TINY.plans)
    train.main(argv)
    train_tasks.main(argv)
    assert trained == {path: path.stat().st_mtime_ns for path in trained}
