"""Imports in which Python looks for no garbage."""

from __future__ import annotations

import gc

import pytest

from text2video_zero.imports import without_collections


def test_collections_go_on_whatever_an_import_does():
    def fail():
        with without_collections():
            assert not gc.isenabled()
            raise ImportError("no such module")

    assert gc.isenabled()
    with pytest.raises(ImportError, match="no such module"):
        fail()
    assert gc.isenabled()


def test_what_has_been_imported_is_not_looked_through_any_more():
    before = gc.get_freeze_count()
    with without_collections():
        kept = [[] for _ in range(1000)]
    assert gc.get_freeze_count() >= before + len(kept)
