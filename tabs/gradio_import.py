"""Gradio imported in half the time: without the type stubs of its components that it writes for editors.

For them it parses the source of every component anew at each import, on a slow machine for two seconds, before any page
is up; and into an installation that nobody may write to they do not come anyway.
"""

from __future__ import annotations

import sys
from importlib import import_module
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from typing import TYPE_CHECKING

from text2video_zero.imports import without_collections

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import ModuleType

WRITES_STUBS = "gradio.component_meta"


class _WithoutStubs(SourceFileLoader):
    def exec_module(self, module: ModuleType) -> None:
        super().exec_module(module)
        vars(module)["create_or_modify_pyi"] = lambda *_: None


class _Finder:
    @staticmethod
    def find_spec(name: str, path: Sequence[str] | None = None, _target: object = None) -> ModuleSpec | None:
        spec = PathFinder.find_spec(name, path) if name == WRITES_STUBS else None
        if spec is not None and isinstance(spec.loader, SourceFileLoader):
            spec.loader = _WithoutStubs(spec.loader.name, spec.loader.path)
        return spec


def import_gradio() -> None:
    """Import it, if it is not yet."""
    if "gradio" in sys.modules:
        return
    sys.meta_path.insert(0, _Finder)
    try:
        with without_collections():
            import_module("gradio")
    finally:
        sys.meta_path.remove(_Finder)
