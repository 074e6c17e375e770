"""The size of a model is known without it, and is the one that the loaded model has."""

import pytest

from text2video_zero.models.checkpoints import INSTRUCT_PIX2PIX, Checkpoint
from text2video_zero.models.hub import Hub
from text2video_zero.models.native_size import native_size
from text2video_zero.models.selection import find_checkpoint
from text2video_zero.requests import Size


@pytest.fixture
def hub(tmp_path):
    """Nothing was downloaded, and nothing can be asked."""
    return Hub("http://127.0.0.1:9", tmp_path / "empty")


@pytest.mark.parametrize(
    ("name", "side"),
    [
        *[("toyland", 128), ("toyland-sunset", 128)],
        *[("sd-1.5", 512), ("anime-style", 512), ("sdxl", 1024), ("someone/unheard-of", 512)],
        *[("someone/model/file.safetensors", 512), ("/nowhere/at/all.safetensors", 512), ("no such name", 512)],
    ],
)
def test_what_is_not_here_has_the_size_of_its_family(name, side, hub):
    assert native_size(find_checkpoint(name), hub) == Size(side, side)


def test_it_is_the_size_of_the_loaded_model(manager, tiny_checkpoint, tiny_xl, tiny_editor_unet, hub):
    edited = Checkpoint(str(tiny_checkpoint), kind=INSTRUCT_PIX2PIX, unet=str(tiny_editor_unet))
    for checkpoint in (Checkpoint(str(tiny_checkpoint)), Checkpoint(str(tiny_xl)), edited):
        with manager.lend(checkpoint) as lent:
            assert native_size(checkpoint, hub) == lent.native_size


def test_a_folder_says_it_itself(tmp_path, hub):
    for folder, sides in (("wide/unet", [40, 72]), ("alone", 96)):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / "config.json").write_text(f'{{"sample_size": {sides}}}')
    assert native_size(Checkpoint(str(tmp_path / "wide")), hub) == Size(576, 320)
    tuned = Checkpoint(str(tmp_path / "wide"), unet=str(tmp_path / "alone"))
    assert native_size(tuned, hub) == Size(768, 768)


def test_a_single_file_with_a_layout_beside_it_has_the_size_of_the_layout(tmp_path, hub):
    (tmp_path / "model" / "unet").mkdir(parents=True)
    (tmp_path / "model" / "unet" / "config.json").write_text('{"sample_size": 96}')
    (tmp_path / "model.safetensors").write_bytes(b"")
    assert native_size(Checkpoint(str(tmp_path / "model.safetensors")), hub) == Size(768, 768)
