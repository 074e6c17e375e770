"""Gradio without the type stubs of its components, as the app imports it."""

from __future__ import annotations

import subprocess
import sys

ASKED = """
import sys
{first}
from gradio import Textbox, blocks_events, component_meta
print(component_meta.create_or_modify_pyi.__name__, blocks_events.create_or_modify_pyi.__name__)
print([finder for finder in sys.meta_path if "tabs" in str(finder)], Textbox("a").value)
"""


def told(first: str) -> list[str]:
    run = subprocess.run(
        [sys.executable, "-c", ASKED.format(first=first)], check=True, capture_output=True, text=True, timeout=120
    )
    return run.stdout.splitlines()


def test_gradio_writes_type_stubs_unless_the_app_imports_it():
    """If Gradio does it otherwise some day, this fails and the module has lost its reason."""
    ours = "from tabs.gradio_import import import_gradio; import_gradio()"
    assert told("import gradio") == [" ".join(["create_or_modify_pyi"] * 2), "[] a"]
    assert told(ours) == [" ".join(["<lambda>"] * 2), "[] a"]
    assert told(f"import gradio; {ours}")[0].startswith("create_or_modify_pyi")  # too late, and no harm
