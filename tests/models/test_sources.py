"""Sources: where a model is on this machine, and when the Hub is asked."""

from __future__ import annotations

import pytest

from tests.fake_hub import FakeHub
from text2video_zero.errors import UserError
from text2video_zero.generators import result_of
from text2video_zero.models.checkpoints import Checkpoint
from text2video_zero.models.hub import Hub
from text2video_zero.models.sources import Sources, file_on_hub


@pytest.fixture
def fake_hub(tiny_checkpoint):
    with FakeHub({"owner/tiny": tiny_checkpoint}).running() as running:
        yield running


@pytest.fixture
def sources(fake_hub, tmp_path):
    return Sources(Hub(fake_hub.endpoint, tmp_path / "cache"))


def test_the_hub_is_asked_once(sources, fake_hub):
    folder = sources.folder("owner/tiny")
    fake_hub.repositories.clear()
    assert sources.folder("owner/tiny") == folder
    with pytest.raises(UserError, match="is not on the Hub"):
        Sources(sources.hub).folder("owner/tiny")


def test_a_model_that_cannot_be_had_is_named_and_not_its_mirrors(sources, monkeypatch):
    mirrors = (Checkpoint("owner/mirror"), Checkpoint("owner/other-mirror"))
    monkeypatch.setattr("text2video_zero.models.sources.mirrors_of", lambda _: mirrors)
    with pytest.raises(UserError, match="'owner/gone' is not on the Hub"):
        result_of(sources.first_to_be_had(Checkpoint("owner/gone")))


def test_a_folder_that_is_here_is_no_hub_id(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert file_on_hub("owner/name/file.safetensors").name == "file.safetensors"
    (tmp_path / "owner").mkdir()
    assert file_on_hub("owner/name/file.safetensors") is None
