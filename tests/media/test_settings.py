"""Settings come back from every form of a video exactly, and files of strangers do no harm."""

import re
import zipfile

import imageio_ffmpeg
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from tests.example_files import moving_square
from text2video_zero.errors import UserError
from text2video_zero.media import settings as settings_module
from text2video_zero.media.settings import read_settings
from text2video_zero.media.video import FORMATS, Video

AWKWARD = {
    "prompt": "a \"red\" 'panda'; x=1 # \\ 漢字 🐼\nnew\ttab\r\x00",
    "seed": 2**32 - 1,
    "pan_x": 0.0234,
    "size": None,
}


@pytest.fixture
def clip() -> Video:
    return Video(moving_square(), 7, AWKWARD)


class TestSettings:
    @pytest.mark.parametrize("suffix", FORMATS)
    def test_every_form_carries_them(self, clip, suffix, tmp_path):
        assert read_settings(clip.save(tmp_path / f"clip{suffix}")) == AWKWARD

    @pytest.mark.parametrize("suffix", FORMATS)
    def test_capital_suffixes_are_the_same_forms(self, clip, suffix, tmp_path):
        assert read_settings(clip.save(tmp_path / f"clip{suffix.upper()}")) == AWKWARD

    @pytest.mark.parametrize("suffix", FORMATS)
    def test_longer_than_an_argument_of_a_program_may_be(self, suffix, tmp_path):
        long = {"prompt": "漢;=\\\n" * 50_000}
        assert read_settings(Video(moving_square()[:1], 8, long).save(tmp_path / f"long{suffix}")) == long

    def test_what_utf_8_cannot_hold(self, tmp_path):
        for suffix in FORMATS:
            assert read_settings(Video(moving_square()[:1], 8, {"p": "\ud800"}).save(tmp_path / f"s{suffix}")) == {
                "p": "\ud800"
            }

    @given(st.dictionaries(st.text(), st.text() | st.integers() | st.booleans() | st.none(), min_size=1))
    @settings(max_examples=12, deadline=None)
    def test_any_text_survives_ffmpeg(self, tmp_path_factory, values):
        path = Video(moving_square()[:1, :8, :8], 8, values).save(tmp_path_factory.mktemp("any") / "clip.mp4")
        assert read_settings(path) == values

    @given(st.binary())
    def test_escaping_is_undone_exactly(self, value):
        escaped = settings_module._escaped(value)
        assert settings_module._unescaped(escaped) == value
        assert not re.search(rb"(?<!\\)(\\\\)*\n", escaped), "a bare line break would end the value"

    def test_json_file(self, tmp_path):
        (tmp_path / "settings.json").write_text('{"seed": 3}')
        assert read_settings(tmp_path / "settings.json") == {"seed": 3}

    def test_files_without_settings_say_so(self, clip, tmp_path):
        path = tmp_path / "bare.mp4"
        writer = imageio_ffmpeg.write_frames(str(path), (96, 64), macro_block_size=2, ffmpeg_log_level="error")
        writer.send(None)
        writer.send(clip.frames[0])
        writer.close()
        Image.fromarray(clip.frames[0]).save(tmp_path / "bare.gif")
        (tmp_path / "list.json").write_text("[1]")
        Video(clip.frames, 8, {}).save(tmp_path / "kept-secret.mp4")
        for name in ("bare.mp4", "bare.gif", "list.json", "kept-secret.mp4"):
            with pytest.raises(UserError, match=f"{name} carries no settings: choose"):
                read_settings(tmp_path / name)

    @pytest.mark.parametrize("suffix", [".mp4", ".gif", ".zip", ".json"])
    @pytest.mark.parametrize(
        "content", [b"", b"#EXTM3U\nfile:///etc/passwd\n", b"PK\x03\x04 no", b"\x00" * 99, b"GIF89a"]
    )
    def test_damaged_files_are_the_persons_and_no_bug(self, suffix, content, tmp_path):
        path = tmp_path / f"damaged{suffix}"
        path.write_bytes(content)
        with pytest.raises(UserError, match=rf"damaged\{suffix} (cannot be read as|carries no) settings"):
            read_settings(path)

    def test_a_zip_bomb_is_not_unpacked(self, tmp_path):
        with zipfile.ZipFile(tmp_path / "bomb.zip", "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("settings.json", b'{"p": "' + b"0" * (1 << 24) + b'"}')
        with pytest.raises(UserError, match="larger than settings"):
            read_settings(tmp_path / "bomb.zip")

    @pytest.mark.parametrize(
        ("method", "locked"), [(zipfile.ZIP_STORED, True), *((method, False) for method in (8, 9, 12, 14, 97))]
    )
    def test_a_zip_that_is_packed_otherwise_than_it_says_is_the_persons(self, method, locked, tmp_path):
        """Locked by a password, of a method that is not known here, or no such thing behind its header."""
        path = tmp_path / "packed.zip"
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("settings.json", b"\x05\x00" * 40)
        content = bytearray(path.read_bytes())
        for signature, flags in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
            place = content.index(signature) + flags
            content[place : place + 4] = bytes([locked, 0, method, 0])
        path.write_bytes(content)
        with pytest.raises(UserError, match=r"packed\.zip cannot be read as settings \(.*\): choose"):
            read_settings(path)

    @pytest.mark.parametrize("limit", [1000, 3000])
    def test_a_gif_that_would_swell_is_not_opened(self, limit, tmp_path, monkeypatch):
        Image.new("L", (64, 64)).save(tmp_path / "vast.gif")
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
        with pytest.raises(UserError, match=r"vast\.gif cannot be read as settings \(it is larger than any video"):
            read_settings(tmp_path / "vast.gif")

    def test_absent_files_and_other_kinds(self, tmp_path):
        with pytest.raises(UserError, match="There is no file"):
            read_settings(tmp_path / "absent.mp4")
        with pytest.raises(UserError, match=r"clip.avi cannot hold settings.*\.mp4, \.gif, \.webm, \.zip or \.json"):
            read_settings(tmp_path / "clip.avi")
