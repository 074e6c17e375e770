"""The memory of a container, read off the files of its control groups."""

import pytest

from tests.device.cgroups import group
from text2video_zero.device.container import container_memory

GIB = 2**30


@pytest.fixture
def memory(tmp_path):
    """What a process of these groups is told; lines: of its /proc/self/cgroup."""
    own = tmp_path / "cgroup"

    def told(lines):
        own.write_text(lines)
        return container_memory(tmp_path, own)

    return told


def test_a_container_sees_its_own_limit(memory, tmp_path):
    group(tmp_path, 2 * GIB, GIB)
    assert memory("0::/\n") == (GIB, 2 * GIB)


def test_what_the_kernel_keeps_of_files_is_free(memory, tmp_path):
    group(tmp_path, 2 * GIB, GIB, cache=GIB // 2)
    assert memory("0::/\n") == (3 * GIB // 2, 2 * GIB)


def test_the_narrowest_of_the_groups_around_it_counts(memory, tmp_path):
    group(tmp_path / "pod", 4 * GIB, 3 * GIB + GIB // 2)
    group(tmp_path / "pod" / "app", 3 * GIB, GIB)
    group(tmp_path / "pod" / "app" / "worker", "max", GIB)
    assert memory("0::/pod/app/worker\n") == (GIB // 2, 4 * GIB)


def test_a_path_of_the_machine_outside_leaves_the_top(memory, tmp_path):
    group(tmp_path, 2 * GIB, GIB)
    assert memory("0::/docker/1f3a\n") == (GIB, 2 * GIB)


def test_version_1_tells_by_other_names(memory, tmp_path):
    group(tmp_path / "memory" / "docker", 2 * GIB, GIB, cache=7, version=1)
    assert memory("9:cpu,cpuacct:/docker\n4:memory:/docker\n") == (GIB + 7, 2 * GIB)


@pytest.mark.parametrize("lines", ["0::/\n", "", "3:cpu:/a\n"])
def test_nothing_limits_it(memory, lines):
    assert memory(lines) is None


def test_no_limit_is_no_number(memory, tmp_path):
    group(tmp_path, "max", GIB)
    assert memory("0::/\n") is None


def test_other_systems_have_no_such_files(tmp_path):
    assert container_memory(tmp_path, tmp_path / "none") is None
