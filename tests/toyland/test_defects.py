"""Defects: drawn and painted ones change the subject alone; the judge learns, is kept, and is measured."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from tests.tiny_toyland import TINY
from toyland.judges.defects import (
    KINDS,
    defect_table,
    load_defect_judge,
    render_flawed,
    save_defect_judge,
    separation,
    soundness,
    train_defect_judge,
)
from toyland.judges.judge import build_judge
from toyland.training.dataset import render_pictures
from toyland.world.defects import DRAWN, PAINTED, Defect, paint_defect
from toyland.world.scene import ACTIONS_OF, DEFECTS_OF, SUBJECTS, Scene, render, render_backdrop


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    return render_pictures(tmp_path_factory.mktemp("pictures"), 24, 64, 5, held_out=None, workers=1)


@pytest.fixture(scope="module")
def flawed(pictures, tmp_path_factory):
    return render_flawed(pictures, 10, tmp_path_factory.mktemp("flawed") / "flawed.npz", workers=1)


@pytest.mark.parametrize("subject", SUBJECTS)
def test_a_drawn_defect_shows_and_leaves_the_backdrop_alone(subject):
    for kind in DEFECTS_OF[subject]:
        for action in ACTIONS_OF[subject]:
            scene = Scene(subject, "green", "beach", action, detail_seed=3)
            sound, backdrop = render(scene), render_backdrop(scene).astype(int)
            for which, much in ((0.0, 0.0), (0.6, 0.9)):
                spoiled = render(scene, defect=Defect(kind, which, much))
                changed = np.abs(spoiled.image.astype(int) - sound.image).max(axis=2) > 30
                assert changed.sum() > 4, (kind, action)
                assert np.abs(spoiled.image - backdrop)[(spoiled.mask == 0)].max() == 0


def test_every_drawn_defect_can_befall_some_subject():
    assert {kind for kinds in DEFECTS_OF.values() for kind in kinds} == set(DRAWN)


@pytest.mark.parametrize("kind", PAINTED)
def test_a_painted_defect_stays_around_the_subject_and_can_be_made_again(kind, pictures):
    image, mask = pictures.images[3], pictures.masks[3]
    made, again = (paint_defect(image, mask, kind, np.random.default_rng(2)) for _ in range(2))
    assert np.array_equal(made, again)
    assert made.dtype == np.uint8
    changed = (made != image).any(axis=2)
    assert 10 < changed.sum() < 0.25 * changed.size
    rows, columns = np.nonzero(mask > 127)
    spoiled_rows, spoiled_columns = np.nonzero(changed)
    assert rows.min() - 20 <= spoiled_rows.mean() <= rows.max() + 20
    assert columns.min() - 20 <= spoiled_columns.mean() <= columns.max() + 20


def test_flawed_pictures_know_their_sound_ones(pictures, flawed):
    assert len(flawed.images) == len(flawed.rows) == len(flawed.kinds) == 10
    for image, row, kind in zip(flawed.images, flawed.rows, flawed.kinds, strict=True):
        assert KINDS[kind] in DEFECTS_OF[pictures.scenes[row].subject]
        assert 0 < (image != pictures.images[row]).mean() < 0.3


def test_the_judge_is_trained_kept_and_measured(pictures, flawed, tmp_path):
    plan = replace(TINY.plans["defect-judge"], steps=30, batch=8, rate=1e-2)
    recipe = replace(TINY, plans={"defect-judge": plan}, judge_channels=(8, 16))
    judge = train_defect_judge(recipe, pictures, flawed, build_judge(recipe), tmp_path / "checkpoint.pt", "cpu")
    save_defect_judge(judge, tmp_path / "judge")
    loaded = load_defect_judge(tmp_path / "judge")
    sure = soundness(loaded, pictures.images)
    assert sure.shape == (24,)
    assert ((sure > 0) & (sure < 1)).all()
    np.testing.assert_allclose(sure, soundness(judge, pictures.images), atol=0.02)
    table = defect_table(loaded, pictures, flawed)
    assert set(table) <= {*KINDS, "all"}
    assert sum(count for kind, (count, _, _) in table.items() if kind != "all") == table["all"][0] == 24 + 24 + 10


def test_separation_is_the_area_under_the_curve():
    sound, spoiled = np.array([0.9, 0.8, 0.4]), np.array([0.1, 0.5])
    assert separation(sound, spoiled) == pytest.approx(5 / 6)
    assert separation(sound, sound) == pytest.approx(0.5)
