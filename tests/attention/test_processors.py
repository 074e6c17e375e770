"""The one patch of attention: what it changes, and that it leaves no trace."""

from __future__ import annotations

import pytest
from diffusers.models.attention_processor import AttnProcessor

from tests.tiny_models import tiny_unet
from text2video_zero.attention.processors import patched_processors


@pytest.fixture(scope="module")
def unet():
    return tiny_unet().eval()


def assert_same(processors, expected):
    assert processors.keys() == expected.keys()
    assert all(processors[name] is found for name, found in expected.items())


@pytest.mark.parametrize("error", [None, RuntimeError, GeneratorExit, KeyboardInterrupt])
def test_patches_lie_within_each_other_and_leave_no_trace(unet, error):
    before = dict(unet.attn_processors)
    first, second, *_ = before
    outer, inner = {first: AttnProcessor(), second: AttnProcessor()}, {second: AttnProcessor()}
    try:
        with patched_processors(unet, outer):
            with patched_processors(unet, inner):
                assert_same(unet.attn_processors, before | outer | inner)
                if error:
                    raise error
            assert_same(unet.attn_processors, before | outer)
    except (RuntimeError, GeneratorExit, KeyboardInterrupt) as raised:
        assert type(raised) is error  # noqa: PT017 - two of them are no Exceptions
    assert_same(unet.attn_processors, before)
    assert list(outer) == [first, second]  # what was given is not emptied


def test_a_layer_that_is_not_there_is_refused(unet):
    before = dict(unet.attn_processors)
    with pytest.raises(ValueError, match="does not match the number"), patched_processors(unet, {"x": AttnProcessor()}):
        pass
    assert_same(unet.attn_processors, before)
