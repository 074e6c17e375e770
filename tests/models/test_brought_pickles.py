"""Models that are pickles (.ckpt and kin): plain tensors are read and told, anything else is one sentence."""

from __future__ import annotations

import shutil
import sys
import zipfile
from argparse import Namespace
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import PosixPath
from threading import Event
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from model_manager import ModelManager
from tests.fake_hub import FakeHub
from tests.lending import same_weights, take
from tests.pickles import Evil
from tests.tiny_models import LORA_LAYER
from tests.tiny_single_files import write_single_file
from text2video_zero.errors import UserError
from text2video_zero.events import Notice
from text2video_zero.models.adapters import read_adapter
from text2video_zero.models.checkpoints import Adapter, Checkpoint, short_name
from text2video_zero.models.files import pickled
from text2video_zero.models.files.pickled import plainly_read
from text2video_zero.models.hub import Hub
from text2video_zero.models.selection import family_of, find_checkpoint, local_models
from text2video_zero.models.sources import Sources
from text2video_zero.models.weights import CONTROLNET_INPUT, UNET_INPUT, family_of_controlnet, read_shapes


@pytest.fixture(scope="module")
def manager():
    return ModelManager("cpu")


@pytest.fixture
def left_by_lightning(monkeypatch):
    """What Stable Diffusion's own files have beside their weights, of a package that need not be installed."""
    callbacks = ModuleType("pytorch_lightning.callbacks.model_checkpoint")
    kind = type("ModelCheckpoint", (), {"__module__": callbacks.__name__})
    vars(callbacks)["ModelCheckpoint"] = kind
    parts = callbacks.__name__.split(".")
    for length in range(1, len(parts)):
        monkeypatch.setitem(sys.modules, ".".join(parts[:length]), ModuleType(parts[length - 1]))
    monkeypatch.setitem(sys.modules, callbacks.__name__, callbacks)
    score = kind()
    vars(score)["best"] = np.float32(0.5)
    given = Namespace(folder=PosixPath("logs"), kinds=(Any, bool, dict, float, int, list, str), seen=defaultdict(list))
    return {
        "callbacks": {kind: {"monitor": "val/loss", "made": score}},
        "hyper_parameters": given,  # omegaconf's hold types of values
        "lr": np.float64(1e-4),
        "epoch": 3,
    }


def as_ckpt(file, **beside):
    """The same model as a .ckpt beside a single file, with what else trainers put in."""
    pickle = file.with_suffix(".ckpt")
    torch.save({"state_dict": load_file(file), **beside}, pickle)
    file.unlink()
    return pickle


class TestCkpt:
    def test_is_read_as_the_same_model_and_told(self, manager, tiny_checkpoint, tmp_path, left_by_lightning):
        file = write_single_file(tmp_path / "mine.safetensors", tiny_checkpoint, tensors={"v_pred": torch.zeros(0)})
        checkpoint = Checkpoint(str(as_ckpt(file, **left_by_lightning)))
        told = [event.text for event in manager.fetch(checkpoint) if isinstance(event, Notice)]
        assert told == ["mine.ckpt is a pickle: it is read as plain tensors, no code of its own is run."]
        assert family_of(checkpoint) == "sd1"
        ours, theirs = (take(manager, one).components for one in (checkpoint, Checkpoint(str(tiny_checkpoint))))
        assert same_weights(ours.unet, theirs.unet)
        assert same_weights(ours.vae, theirs.vae)
        assert same_weights(ours.text_encoder, theirs.text_encoder)
        assert ours.scheduler.config.prediction_type == "v_prediction"
        assert not any(isinstance(allowed, tuple) for allowed in torch.serialization.get_safe_globals())

    def test_under_older_names_too(self, manager, tiny_checkpoint, tmp_path):
        pickle = as_ckpt(write_single_file(tmp_path / "old.safetensors", tiny_checkpoint, older_names=True))
        ours, theirs = (take(manager, Checkpoint(str(one))).components for one in (pickle, tiny_checkpoint))
        assert same_weights(ours.text_encoder, theirs.text_encoder)

    def test_its_shapes_are_told_without_its_weights(self, tmp_path):
        """A controlnet of the original authors, .pth; what tells it is what tells it as safetensors."""
        name = "control_model.input_hint_block.0.weight"
        assert CONTROLNET_INPUT.search(name)
        key = "control_model.input_blocks.1.1.transformer_blocks.0.attn2.to_k.weight"
        torch.save({name: torch.zeros(16, 3, 3, 3), key: torch.zeros(320, 768), "step": 3}, tmp_path / "canny.pth")
        shapes = read_shapes(tmp_path / "canny.pth")
        assert shapes == {name: (16, 3, 3, 3), key: (320, 768)}
        assert family_of_controlnet(tmp_path / "canny.pth", shapes) == "sd1"

    def test_of_the_hub_by_its_name(self, tiny_checkpoint, tmp_path):
        pickle = as_ckpt(write_single_file(tmp_path / "hub" / "mine.safetensors", tiny_checkpoint))
        shutil.rmtree(pickle.with_suffix(""))
        with FakeHub({"owner/old": pickle.parent}).running() as running:
            manager = ModelManager("cpu", hub=Hub(running.endpoint, tmp_path / "cache"))
            with pytest.raises(UserError, match=r"name one of its files, as in owner/old/mine\.ckpt"):
                list(manager.fetch(Checkpoint("owner/old")))
            path = manager._sources.folder("owner/old/mine.ckpt")
        assert path.name == "mine.ckpt"
        assert find_checkpoint("owner/old/mine.ckpt@v1") == Checkpoint("owner/old/mine.ckpt", "v1")


class TestNames:
    def test_are_offered_and_found_with_and_without_their_suffix(self, tmp_path):
        folder = tmp_path / "models"
        folder.mkdir()
        for name in ("mine.ckpt", "both.ckpt"):
            torch.save({}, folder / name)
        save_file({UNET_INPUT: torch.zeros(1, 4)}, folder / "both.safetensors")
        assert set(local_models(folder)) == {"mine", "both", "both.ckpt"}
        for name, file in (
            ("mine", "mine.ckpt"),
            ("mine.ckpt", "mine.ckpt"),
            ("both", "both.safetensors"),
            ("both.ckpt", "both.ckpt"),
            ("both.safetensors", "both.safetensors"),
        ):
            assert find_checkpoint(name, folder) == Checkpoint(str(folder / file))
            assert find_checkpoint(short_name(str(folder / file)), folder) == Checkpoint(str(folder / file))

    def test_one_that_is_not_there_is_told(self, manager):
        with pytest.raises(UserError, match=r"The model 'gone\.ckpt' does not exist: check the path"):
            take(manager, Checkpoint("gone.ckpt"))


def swollen(path):
    """A torch archive, packed."""
    torch.save({"a": torch.zeros(4)}, path)
    with zipfile.ZipFile(path) as archive:
        entries = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in entries.items():
            archive.writestr(name, content)


def cut(path):
    torch.save({"a": torch.zeros(4000)}, path)
    path.write_bytes(path.read_bytes()[:-2000])


BAD = {
    "code": (lambda path: torch.save({UNET_INPUT: Evil()}, path), r"a pickle of more than tensors \(builtins\.exec\)"),
    "cut": (cut, "is damaged, or no archive"),
    "packed": (swollen, "is damaged, or no archive"),
    "nothing": (lambda path: path.write_bytes(b""), "is damaged, or no archive"),
    "a page of the web": (lambda path: path.write_text("<html>Not found"), "is damaged, or no archive"),
    "before torch 1.6": (
        lambda path: torch.save({"a": torch.zeros(2)}, path, _use_new_zipfile_serialization=False),
        "is damaged, or no archive",
    ),
    "a list": (lambda path: torch.save([torch.zeros(2)], path), "cannot be read as plain tensors"),
    "a number": (lambda path: torch.save({"state_dict": 3}, path), "cannot be read as plain tensors"),
    "no model": (lambda path: torch.save({"a.b": torch.zeros(2)}, path), "is no Stable Diffusion model"),
}


@pytest.mark.parametrize("name", BAD)
def test_what_is_no_plain_model_is_one_sentence_and_breaks_no_list(name, manager, tmp_path):
    write, sentence = BAD[name]
    file = tmp_path / "bad.ckpt"
    write(file)
    assert set(local_models(tmp_path)) == {"bad"}
    with pytest.raises(UserError, match=rf"^The (model )?file 'bad\.ckpt' (is )?{sentence}") as caught:
        take(manager, Checkpoint(str(file)))
    assert "\n" not in str(caught.value)
    assert not any(isinstance(allowed, tuple) for allowed in torch.serialization.get_safe_globals())


def test_two_threads_may_read_pickles_at_once(tmp_path):
    """What torch may make of them is one list of the whole program."""
    file, entered = tmp_path / "mine.ckpt", Event()
    torch.save({"a": torch.zeros(2), "kept": defaultdict(list)}, file)

    def read():
        entered.set()
        return read_shapes(file)

    with ThreadPoolExecutor() as pool:
        with plainly_read(file):
            other = pool.submit(read)
            entered.wait()
            assert not wait([other], timeout=0.2).done
            assert read_shapes(file) == {"a": (2,)}  # the same thread goes on
        assert other.result() == {"a": (2,)}
    assert not any(isinstance(allowed, tuple) for allowed in torch.serialization.get_safe_globals())


def test_a_pickle_that_is_longer_than_any_models_is_not_read(manager, tmp_path, monkeypatch):
    monkeypatch.setattr(pickled, "LARGEST_PICKLE", 1000)
    torch.save({f"tensor-{number}": torch.zeros(1) for number in range(20)}, tmp_path / "bad.ckpt")
    with pytest.raises(UserError, match="is damaged, or no archive"):
        take(manager, Checkpoint(str(tmp_path / "bad.ckpt")))


def test_a_lora_that_is_a_pickle_is_told(manager, tiny_checkpoint, tmp_path):
    torch.save({f"lora_unet_{LORA_LAYER.replace('.', '_')}.diff": torch.zeros(32, 32)}, tmp_path / "ink.pt")
    with pytest.raises(UserError, match=r"The LoRA 'ink\.pt' is a pickle: get it as \.safetensors"):
        take(manager, Checkpoint(str(tiny_checkpoint), adapters=(Adapter(str(tmp_path / "ink.pt")),)))
    with pytest.raises(UserError, match=r"The LoRA 'ink\.pt' is a pickle"):  # as soon as it is named
        read_adapter(f"{tmp_path / 'ink.pt'}:0.8")


def test_a_lora_that_is_a_pickle_on_the_hub_is_told_before_anything_is_downloaded(tiny_checkpoint, tmp_path):
    (tmp_path / "ink").mkdir()
    (tmp_path / "ink" / "pytorch_lora_weights.bin").write_bytes(b"pickle")
    with FakeHub({"owner/tiny": tiny_checkpoint, "owner/ink": tmp_path / "ink"}).running() as running:
        manager = ModelManager("cpu", hub=Hub(running.endpoint, tmp_path / "cache"))
        for source, sentence in (
            ("owner/ink", "The LoRA 'owner/ink' offers no weights as safetensors: choose another one, or convert it"),
            ("owner/ink/pytorch_lora_weights.bin", r"The LoRA 'pytorch_lora_weights\.bin' is a pickle"),
        ):
            with pytest.raises(UserError, match=sentence):
                list(manager.fetch(Checkpoint("owner/tiny", adapters=(Adapter(source),))))
        assert running.served == []


def test_a_controlnet_of_the_hub_that_is_a_pickle_goes_by_its_name(tmp_path):
    (tmp_path / "nets").mkdir()
    torch.save({"a": torch.zeros(2)}, tmp_path / "nets" / "canny.pth")
    with FakeHub({"owner/nets": tmp_path / "nets"}).running() as running:
        sources = Sources(Hub(running.endpoint, tmp_path / "cache"))
        with pytest.raises(UserError, match=r"name one of its files, as in owner/nets/canny\.pth"):
            sources.folder("owner/nets")
        assert sources.folder("owner/nets/canny.pth").name == "canny.pth"
