"""Names of files: readable, never the same twice, and never a path."""

import errno
import re
import tempfile
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from text2video_zero.media import files
from text2video_zero.media.files import folder_of_this_program, slug, unique_path


class TestNames:
    def test_never_the_same_twice(self, tmp_path):
        paths = {unique_path(tmp_path, "a red panda", ".mp4") for _ in range(50)}
        assert len(paths) == 50
        assert all(re.fullmatch(r"a-red-panda-\d{8}-\d{6}-[0-9a-f]{16}\.mp4", path.name) for path in paths)

    @given(st.text())
    def test_any_prompt_makes_a_name_and_never_a_path(self, prompt):
        name = slug(prompt)
        assert 0 < len(name) <= 80
        assert Path(name).name == name
        assert not name.startswith((".", "-"))

    def test_readable(self):
        assert slug("A Red Panda, dancing!") == "a-red-panda-dancing"
        assert slug("../../etc/passwd") == "etc-passwd"
        assert slug("漢字 のパンダ") == "漢字-のパンダ"
        assert slug("!?") == "video"


def test_where_no_folder_can_be_locked_each_program_has_its_own(tmp_path, monkeypatch):
    def flock(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(files.fcntl, "flock", flock)
    mine, remove = folder_of_this_program("mine-")
    other, remove_other = folder_of_this_program("mine-")
    assert mine.is_dir()
    assert other.is_dir()
    remove()
    remove_other()
    assert list(tmp_path.iterdir()) == []
