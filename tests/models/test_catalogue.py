"""The catalogue: what its tables hold, and what they tell about a checkpoint."""

from __future__ import annotations

import re
from dataclasses import replace

from text2video_zero.models.catalogue import (
    CONTROLNETS,
    DREAMBOOTH_STYLES,
    INSTRUCT_PIX2PIX_MODELS,
    KNOWN_DETECTORS,
    KNOWN_MODELS,
    TOYLAND,
    name_of,
    origin_of,
)
from text2video_zero.models.checkpoints import Adapter, Checkpoint
from text2video_zero.requests import TextToVideoRequest
from text2video_zero.requests.camera import CAMERA_PRESETS


def test_every_id_is_of_the_hubs_form_and_no_revision_is_invented():
    checkpoints = [model.checkpoint for model in (*KNOWN_MODELS.values(), *DREAMBOOTH_STYLES.values())]
    checkpoints += [mirror for model in KNOWN_MODELS.values() for mirror in model.mirrors]
    checkpoints += INSTRUCT_PIX2PIX_MODELS.values()
    controlnets = [source for controls in CONTROLNETS.values() for source in controls.values()]
    detectors = [source for d in KNOWN_DETECTORS.values() for source in (d.source, d.box_source) if source]
    for source in [*(checkpoint.source for checkpoint in checkpoints), *controlnets, *detectors]:
        assert source.startswith("/") or re.fullmatch(r"[\w.-]+/[\w.-]+", source)
    assert all(checkpoint.revision is None for checkpoint in checkpoints)


def test_an_embedded_style_is_the_embedded_model_with_one_part_of_its_own():
    sunset, sketch = DREAMBOOTH_STYLES["toyland-sunset"], DREAMBOOTH_STYLES["toyland-sketch"]
    toyland = KNOWN_MODELS["toyland"].checkpoint
    assert replace(sunset.checkpoint, unet=None) == toyland
    assert replace(sketch.checkpoint, adapters=()) == toyland
    for style, words in ((sunset, "sunset poster style"), (sketch, "sks style")):
        assert style.defaults["quality_prompt"].startswith(words)
        assert f"'{words}'" in style.note
        assert style.defaults["steps"] == KNOWN_MODELS["toyland"].defaults["steps"]
        assert name_of(replace(style.checkpoint, controlnet="mine/edges")) == style.name
    assert name_of(toyland) == "toyland"


def test_a_model_that_wants_words_in_the_prompt_says_which():
    assert "'mdjrny-v4 style'" in KNOWN_MODELS["openjourney"].note


def test_toylands_own_camera_is_one_that_the_page_offers_by_name():
    camera = {name: TextToVideoRequest(prompt="?").to_dict()[name] for name in CAMERA_PRESETS["Still"]}
    assert camera | {k: v for k, v in TOYLAND.defaults.items() if k in camera} == CAMERA_PRESETS["Pan right"]


def test_the_origin_of_a_checkpoint_is_told_with_what_was_added():
    mine = Adapter("owner/style", 0.5)
    for name, known in (KNOWN_MODELS | DREAMBOOTH_STYLES).items():
        tuned = replace(known.checkpoint, adapters=(*known.checkpoint.adapters, mine), controlnet="owner/edges")
        assert origin_of(tuned) == (name, (mine,))
        assert origin_of(known.checkpoint) == (name, ())
    assert origin_of(Checkpoint("owner/name", adapters=(mine,))) == ("owner/name", (mine,))
