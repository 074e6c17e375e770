"""Downloads: the Hub's own client against a Hub on this machine."""

from __future__ import annotations

import shutil

import pytest
from huggingface_hub import constants

from tests.fake_hub import FakeHub
from text2video_zero import hub as hub_module
from text2video_zero.errors import UserError
from text2video_zero.hub import Hub, needed_files

SD15 = [
    "README.md",
    "model_index.json",
    "v1-5-pruned.safetensors",
    "v1-5-pruned.ckpt",
    "unet/config.json",
    "unet/diffusion_pytorch_model.bin",
    "unet/diffusion_pytorch_model.safetensors",
    "unet/diffusion_pytorch_model.fp16.safetensors",
    "unet/diffusion_pytorch_model.non_ema.safetensors",
    "vae/config.json",
    "vae/diffusion_pytorch_model.safetensors",
    "vae/diffusion_pytorch_model.fp16.safetensors",
    "text_encoder/config.json",
    "text_encoder/model.safetensors",
    "text_encoder/model.fp16.safetensors",
    "tokenizer/vocab.json",
    "tokenizer/merges.txt",
    "safety_checker/config.json",
    "safety_checker/model.safetensors",
    "safety_checker/model.fp16.safetensors",
    "unet_openvino/openvino_model.xml",
]


class TestNeededFiles:
    def test_one_precision_no_pickles_no_copies(self):
        full = needed_files(SD15)
        assert [name for name in full if name.endswith(".safetensors")] == [
            "text_encoder/model.safetensors",
            "unet/diffusion_pytorch_model.safetensors",
            "vae/diffusion_pytorch_model.safetensors",
        ]
        assert {"model_index.json", "tokenizer/merges.txt", "vae/config.json"} <= set(full)
        assert not any(name.endswith((".bin", ".ckpt", ".md", ".xml")) for name in full)

    def test_half_precision_where_all_of_it_is_offered(self):
        half = needed_files(SD15, half=True, checker=True)
        assert sum(name.endswith(".fp16.safetensors") for name in half) == 4
        assert not any(name.endswith(("model.safetensors", "non_ema.safetensors")) for name in half)
        patchy = [name for name in SD15 if name != "vae/diffusion_pytorch_model.fp16.safetensors"]
        assert needed_files(patchy, half=True) == needed_files(patchy)

    @pytest.mark.parametrize(
        ("names", "weights"),
        [
            (["config.json", "diffusion_pytorch_model.bin"], []),
            (
                ["config.json", "diffusion_pytorch_model.safetensors", "OpenPoseXL2.safetensors"],
                ["diffusion_pytorch_model.safetensors"],
            ),
            (["config.json", "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"], "all"),
            (["config.json", "model.fp16.safetensors"], ["model.fp16.safetensors"]),
            (["my_style.safetensors", "my_style.ckpt", "images/1.png"], ["my_style.safetensors"]),
        ],
    )
    def test_single_networks_and_loras(self, names, weights):
        found = [name for name in needed_files(names) if name.endswith(".safetensors")]
        assert found == ([name for name in names if name.endswith(".safetensors")] if weights == "all" else weights)


@pytest.fixture
def fake_hub(tiny_checkpoint, tmp_path):
    pickled = tmp_path / "pickled"
    pickled.mkdir()
    (pickled / "config.json").write_text("{}")
    (pickled / "pytorch_model.bin").write_bytes(b"pickle")
    repositories = {"owner/tiny": tiny_checkpoint, "owner/gated": tiny_checkpoint, "owner/pickled": pickled}
    with FakeHub(repositories, gated=("owner/gated",)).running() as running:
        yield running


@pytest.fixture
def hub(fake_hub, tmp_path):
    return Hub(fake_hub.endpoint, tmp_path / "cache")


class TestDownload:
    def test_brings_a_folder_once_and_works_without_a_network_after(self, hub, fake_hub, monkeypatch):
        assert not hub.is_here("owner/tiny")
        folder = hub.folder("owner/tiny")
        assert (folder / "unet" / "diffusion_pytorch_model.safetensors").is_file()
        served = len(fake_hub.served)
        assert hub.folder("owner/tiny") == folder
        assert len(fake_hub.served) == served
        assert hub.is_here("owner/tiny")
        nowhere = Hub("http://127.0.0.1:9", hub.cache)
        assert nowhere.folder("owner/tiny") == folder
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
        assert hub.folder("owner/tiny") == folder

    def test_tells_bytes(self, fake_hub, tmp_path, tiny_checkpoint):
        told = []
        Hub(fake_hub.endpoint, tmp_path / "cache", lambda *report: told.append(report)).folder("owner/tiny")
        source, here, of = told[-1]
        assert source == "owner/tiny"
        assert here == of > (tiny_checkpoint / "unet" / "diffusion_pytorch_model.safetensors").stat().st_size

    def test_goes_on_where_it_was_cut(self, hub, fake_hub, tmp_path):
        big = tmp_path / "big"
        big.mkdir()
        content = bytes(range(256)) * (24 * 4096)  # the client writes in pieces of 10 MB
        (big / "model.safetensors").write_bytes(content)
        fake_hub.repositories["owner/big"] = big
        fake_hub.break_after = 22_000_000
        assert (hub.folder("owner/big") / "model.safetensors").read_bytes() == content
        assert fake_hub.ranges[-1] not in {None, "bytes=0-"}

    @pytest.mark.parametrize(
        ("source", "revision", "sentence"),
        [
            ("owner/gated", None, "'owner/gated' is gated: accept its terms"),
            ("owner/unknown", None, "'owner/unknown' is not on the Hub, or is private"),
            ("owner/tiny", "v9", "'owner/tiny' has no revision 'v9'"),
            ("owner/pickled", None, "'owner/pickled' offers no weights as safetensors"),
            ("no id / at all", None, "'no id / at all' is neither here nor a Hub id"),
        ],
    )
    def test_refusals_are_one_sentence(self, hub, source, revision, sentence):
        with pytest.raises(UserError, match=sentence) as caught:
            hub.folder(source, revision)
        assert str(caught.value).count(". ") == 0

    def test_without_a_network_says_what_is_missing(self, tmp_path):
        with pytest.raises(UserError, match="'owner/tiny' is not on this machine, and the Hub cannot be reached"):
            Hub("http://127.0.0.1:9", tmp_path / "cache").folder("owner/tiny")

    def test_a_half_downloaded_model_is_not_taken_for_a_whole_one(self, hub):
        folder = hub.folder("owner/tiny")
        (folder / "unet" / "diffusion_pytorch_model.safetensors").unlink()
        with pytest.raises(UserError, match="is not on this machine"):
            Hub("http://127.0.0.1:9", hub.cache).folder("owner/tiny")
        assert (hub.folder("owner/tiny") / "unet" / "diffusion_pytorch_model.safetensors").is_file()

    def test_a_full_disk_is_seen_before_and_told_during(self, hub, monkeypatch):
        usage = shutil.disk_usage("/")
        monkeypatch.setattr(hub_module.shutil, "disk_usage", lambda _: usage._replace(free=10))
        with pytest.raises(UserError, match=r"needs 0.0 GB, and the disk has 0.0 GB left"):
            hub.folder("owner/tiny")
        monkeypatch.undo()

        def fill_up(*_, **__):
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(hub_module, "snapshot_download", fill_up)
        with pytest.raises(UserError, match="The disk was full before"):
            hub.folder("owner/tiny")
