"""Downloads: the Hub's own client against a Hub on this machine."""

from __future__ import annotations

import shutil
import time

import pytest
from huggingface_hub import constants

from tests.fake_hub import FakeHub
from text2video_zero.errors import UserError
from text2video_zero.generators import result_of
from text2video_zero.models.hub import Hub, client, download
from text2video_zero.models.hub.files import checker_files, needed_files

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

    def test_pickles_only_for_parts_that_have_nothing_else(self):
        part = ["config.json", "diffusion_pytorch_model.bin"]
        assert needed_files(part) == part
        assert "unet/diffusion_pytorch_model.bin" not in needed_files(SD15)
        without = [name for name in SD15 if not name.startswith("unet/") or not name.endswith(".safetensors")]
        found = needed_files(without)
        assert "unet/diffusion_pytorch_model.bin" in found
        assert "v1-5-pruned.ckpt" not in found
        assert "vae/diffusion_pytorch_model.safetensors" in found
        two = [*part, "diffusion_pytorch_model.fp16.bin"]
        assert [len([n for n in needed_files(two, half=half) if n.endswith(".bin")]) for half in (True, False)] == [
            1,
            1,
        ]

    def test_the_safety_checker_is_left_to_those_who_ask_for_it(self):
        assert not any("safety_checker" in name for name in needed_files(SD15))
        assert checker_files(SD15) == ["safety_checker/config.json", "safety_checker/model.safetensors"]

    def test_half_precision_where_all_of_it_is_offered(self):
        half = needed_files(SD15, half=True)
        assert sum(name.endswith(".fp16.safetensors") for name in half) == 3
        assert not any(name.endswith(("model.safetensors", "non_ema.safetensors")) for name in half)
        patchy = [name for name in SD15 if name != "vae/diffusion_pytorch_model.fp16.safetensors"]
        assert needed_files(patchy, half=True) == needed_files(patchy)

    @pytest.mark.parametrize(
        ("names", "weights"),
        [
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
    (pickled / "model.ckpt").write_bytes(b"pickle")
    repositories = {"owner/tiny": tiny_checkpoint, "owner/gated": tiny_checkpoint, "owner/pickled": pickled}
    with FakeHub(repositories, gated=("owner/gated",)).running() as running:
        yield running


@pytest.fixture
def hub(fake_hub, tmp_path):
    return Hub(fake_hub.endpoint, tmp_path / "cache")


@pytest.fixture
def big(fake_hub, tmp_path):
    """A file of several pieces, and its content."""
    content = bytes(range(256)) * (16 * 1024)
    folder = tmp_path / "big"
    folder.mkdir()
    (folder / "model.safetensors").write_bytes(content)
    fake_hub.repositories["owner/big"] = folder
    return content


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

    def test_tells_bytes(self, hub, tiny_checkpoint):
        told = list(hub.fetch("owner/tiny"))
        weights = sum(path.stat().st_size for path in tiny_checkpoint.rglob("*.safetensors"))
        assert {(event.stage, event.unit, event.of) for event in told} == {("Downloading owner/tiny", "bytes", weights)}
        assert [event.step for event in told] == sorted(event.step for event in told)
        assert told[-1].step == weights
        assert list(hub.fetch("owner/tiny")) == []

    def test_goes_on_where_it_was_cut(self, hub, fake_hub, big):
        fake_hub.break_after = 2_200_000
        assert (hub.folder("owner/big") / "model.safetensors").read_bytes() == big
        assert fake_hub.ranges[-1] not in {None, "bytes=0-"}

    def test_goes_on_where_it_was_stopped(self, hub, fake_hub, big, monkeypatch):
        monkeypatch.setattr(client, "TELL_SECONDS", 0)
        begun = hub.fetch("owner/big")
        first = next(begun)
        begun.close()
        assert 0 < first.step < first.of == len(big)
        assert not hub.is_here("owner/big")
        sizes = [path.stat().st_size for path in hub.cache.rglob("*.incomplete")]
        assert (hub.folder("owner/big") / "model.safetensors").read_bytes() == big
        assert fake_hub.ranges[-1] == f"bytes={sizes[0]}-"
        assert not list(hub.cache.rglob("*.incomplete"))

    def test_begins_anew_where_a_server_knows_no_ranges(self, hub, fake_hub, big):
        fake_hub.knows_ranges = False
        fake_hub.break_after = 2_200_000
        assert (hub.folder("owner/big") / "model.safetensors").read_bytes() == big
        assert fake_hub.served == ["model.safetensors"] * 2

    @pytest.mark.usefixtures("big")
    def test_asks_for_what_is_missing_and_for_no_more(self, hub, fake_hub):
        fake_hub.break_after = 2_200_000
        hub.folder("owner/big")
        assert fake_hub.ranges == [None, f"bytes={2 * download.PIECE}-"]

    def test_of_another_version_nothing_is_kept(self, hub, fake_hub, big):
        fake_hub.breaks, fake_hub.break_after = 1000, 2_200_000
        with pytest.raises(UserError):
            hub.folder("owner/big")
        (left,) = hub.cache.rglob("*.incomplete")
        left.write_bytes(b"x" * (len(big) + 1))
        fake_hub.breaks = 0
        assert (hub.folder("owner/big") / "model.safetensors").read_bytes() == big

    def test_a_connection_may_break_often_if_each_brings_something(self, hub, fake_hub, big, monkeypatch):
        monkeypatch.setattr(download, "PIECE", 2**16)
        monkeypatch.setattr(download, "PAUSE_SECONDS", 0)
        fake_hub.break_after, fake_hub.break_step, fake_hub.breaks = 300_000, 300_000, 2 * download.ATTEMPTS
        assert (hub.folder("owner/big") / "model.safetensors").read_bytes() == big
        assert len(fake_hub.served) == 2 * download.ATTEMPTS + 1

    def test_a_connection_that_breaks_again_and_again_is_told(self, hub, fake_hub, big, monkeypatch):
        monkeypatch.setattr(download, "PAUSE_SECONDS", 0)
        fake_hub.break_after, fake_hub.breaks = 2_200_000, 1000
        with pytest.raises(UserError, match="'owner/big' is not on this machine, and the Hub cannot be reached"):
            hub.folder("owner/big")
        assert len(fake_hub.served) == download.ATTEMPTS  # the first of them brought something
        fake_hub.breaks = 0
        assert (hub.folder("owner/big") / "model.safetensors").read_bytes() == big

    @pytest.mark.usefixtures("big")
    @pytest.mark.parametrize("when", ["before it answers", "between pieces"])
    def test_a_hub_that_is_silent_for_too_long_is_one_sentence(self, hub, fake_hub, monkeypatch, when):
        monkeypatch.setattr(download, "PAUSE_SECONDS", 0)
        silence = (client, "TIMEOUT") if when == "before it answers" else (download, "SILENCE_SECONDS")
        monkeypatch.setattr(*silence, 0.2)
        fake_hub.pause = 0.6
        began = time.monotonic()
        with pytest.raises(
            UserError, match="'owner/big' is not on this machine, and the Hub cannot be reached"
        ) as told:
            hub.folder("owner/big")
        assert time.monotonic() - began < 30
        assert str(told.value).count(". ") == 0

    def test_of_two_programs_one_downloads(self, hub, fake_hub, big, monkeypatch):
        monkeypatch.setattr(client, "TELL_SECONDS", 0)
        first = hub.fetch("owner/big")
        next(first)
        second = hub.fetch("owner/big")
        assert next(second).step > 0
        for running in (first, second):
            assert (result_of(running) / "model.safetensors").read_bytes() == big
        assert fake_hub.served.count("model.safetensors") == 1

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
    def test_each_reason_is_one_sentence(self, hub, source, revision, sentence):
        with pytest.raises(UserError, match=sentence) as caught:
            hub.folder(source, revision)
        assert str(caught.value).count(". ") == 0

    def test_without_a_network_says_what_is_missing(self, tmp_path):
        with pytest.raises(UserError, match="'owner/tiny' is not on this machine, and the Hub cannot be reached"):
            Hub("http://127.0.0.1:9", tmp_path / "cache").folder("owner/tiny")

    def test_a_hub_that_fails_is_as_good_as_none(self, hub, fake_hub):
        folder = hub.folder("owner/tiny")
        fake_hub.fails = True
        assert hub.folder("owner/tiny") == folder
        with pytest.raises(UserError, match="'owner/big' is not on this machine, and the Hub cannot be reached"):
            hub.folder("owner/big")

    def test_the_time_left_is_told_by_what_came_since_the_beginning(self, monkeypatch):
        monkeypatch.setattr(client, "TELL_SECONDS", 0)
        clock = client._Clock("Downloading", 100, began=time.monotonic() - 8)
        (first,) = clock.told(60)  # left by an earlier attempt
        (later,) = clock.told(80)
        assert first.seconds_left is None
        assert later.seconds_left == pytest.approx(8, rel=0.1)

    def test_a_half_downloaded_model_is_not_taken_for_a_whole_one(self, hub):
        folder = hub.folder("owner/tiny")
        (folder / "unet" / "diffusion_pytorch_model.safetensors").unlink()
        with pytest.raises(UserError, match="is not on this machine"):
            Hub("http://127.0.0.1:9", hub.cache).folder("owner/tiny")
        assert (hub.folder("owner/tiny") / "unet" / "diffusion_pytorch_model.safetensors").is_file()

    def test_a_full_disk_is_seen_before_and_told_during(self, hub, monkeypatch):
        usage = shutil.disk_usage("/")
        monkeypatch.setattr(client.shutil, "disk_usage", lambda _: usage._replace(free=10))
        with pytest.raises(UserError, match=r"needs 0.0 GB, and the disk has 0.0 GB left"):
            hub.folder("owner/tiny")
        monkeypatch.undo()

        def fill_up(*_, **__):
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(client, "snapshot_download", fill_up)
        with pytest.raises(UserError, match="The disk was full before"):
            hub.folder("owner/tiny")
