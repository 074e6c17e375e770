"""Imports in which Python looks for no garbage."""

from __future__ import annotations

import gc
import io
import os

import pytest
from diffusers.utils.logging import enable_progress_bar, is_progress_bar_enabled

import app
from text2video_zero import __main__ as cli
from text2video_zero.imports import sharing_cores, without_collections


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


@pytest.mark.parametrize(("said", "is_then"), [(None, "PASSIVE"), ("ACTIVE", "ACTIVE")])
def test_threads_leave_others_their_cores_while_they_wait_unless_somebody_has_said_how(monkeypatch, said, is_then):
    monkeypatch.setenv("OMP_WAIT_POLICY", said or "")
    if said is None:
        monkeypatch.delenv("OMP_WAIT_POLICY")
    with sharing_cores():
        assert os.environ["OMP_WAIT_POLICY"] == is_then  # by the time at which torch is imported


@pytest.mark.parametrize("program", ["page", "command line"])
def test_both_programs_import_torch_so_and_load_without_bars(monkeypatch, program):
    monkeypatch.setenv("OMP_WAIT_POLICY", "")
    monkeypatch.delenv("OMP_WAIT_POLICY")
    enable_progress_bar()
    if program == "page":
        app.open_models(app.read_options(["--device", "cpu"]))
    else:
        arguments = cli.build_parser().parse_args(["text-to-video", "--prompt", "a fox", "--device", "cpu"])
        cli.model_manager_of(arguments, cli.ProgressLine(io.StringIO(), quiet=True))
    assert os.environ["OMP_WAIT_POLICY"] == "PASSIVE"
    assert not is_progress_bar_enabled()
