"""Names of files: readable, never the same twice, and never a path."""

import re
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from text2video_zero.media.files import slug, unique_path


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
