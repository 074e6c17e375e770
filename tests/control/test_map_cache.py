"""The store of control maps gives back what it was given, forgets the oldest, and never stands in the way."""

import dataclasses
import os

import numpy as np
import pytest

from text2video_zero.control.map_cache import MapCache, MapKey
from text2video_zero.requests.fields import Size

KEY = MapKey("cafe", "canny", {"low": 100, "high": 200}, Size(64, 48), 8.0, 0, 3)
CHANGES = {
    "file": "beef",
    "detector": "other",
    "settings": {"low": 50, "high": 200},
    "size": Size(48, 64),
    "fps": 12.0,
    "first_frame": 1,
    "frames": 2,
}


def noise(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (3, 48, 64, 3), np.uint8)


def test_what_was_put_comes_back(tmp_path):
    cache = MapCache(tmp_path / "maps")
    assert cache.get(KEY) is None
    cache.put(KEY, noise())
    assert np.array_equal(MapCache(tmp_path / "maps").get(KEY), noise())
    assert [path.suffix for path in (tmp_path / "maps").iterdir()] == [".npz"]


@pytest.mark.parametrize("field", CHANGES)
def test_everything_that_the_maps_depend_on_is_in_the_key(field, tmp_path):
    cache = MapCache(tmp_path)
    cache.put(KEY, noise())
    assert cache.get(dataclasses.replace(KEY, **{field: CHANGES[field]})) is None


def test_the_order_of_settings_does_not_matter():
    assert KEY.digest == dataclasses.replace(KEY, settings={"high": 200, "low": 100}).digest


def test_the_longest_unused_go_first(tmp_path):
    keys = [dataclasses.replace(KEY, first_frame=index) for index in range(4)]
    unlimited = MapCache(tmp_path)
    for age, key in enumerate(keys[:3]):
        unlimited.put(key, noise(age))
        os.utime(tmp_path / f"{key.digest}.npz", (1000 + age, 1000 + age))
    one = (tmp_path / f"{keys[0].digest}.npz").stat().st_size
    cache = MapCache(tmp_path, limit=int(2.5 * one))
    assert cache.get(keys[0]) is not None  # used just now
    cache.put(keys[3], noise(3))
    assert [cache.get(key) is not None for key in keys] == [True, False, False, True]


def test_damaged_files_are_forgotten(tmp_path):
    cache = MapCache(tmp_path)
    cache.put(KEY, noise())
    path = tmp_path / f"{KEY.digest}.npz"
    for damage in (b"", b"not a zip", path.read_bytes()[:200]):
        path.write_bytes(damage)
        assert cache.get(KEY) is None
        assert not path.exists()


def test_a_disk_that_takes_nothing_costs_no_run(tmp_path):
    (tmp_path / "file").write_text("in the way")
    cache = MapCache(tmp_path / "file")
    cache.put(KEY, noise())
    assert cache.get(KEY) is None
