"""How much memory a container may fill: the machine's own numbers do not tell.

Linux' control groups, version 2 (the kernel's Documentation/admin-guide/cgroup-v2.rst, "Memory Interface Files") and
version 1 (cgroup-v1/memory.rst). A limit holds for all groups below it, and the narrowest one counts.
"""

from __future__ import annotations

from pathlib import Path

_GROUPS, _OWN = Path("/sys/fs/cgroup"), Path("/proc/self/cgroup")
# Limit, use, and the name in memory.stat of the files' cache that the kernel gives up when memory runs short.
_VERSION_2 = ("memory.max", "memory.current", "inactive_file")
_VERSION_1 = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")


def container_memory(groups: Path = _GROUPS, own: Path = _OWN) -> tuple[int, int] | None:
    """Free bytes and limit of the narrowest group around this process; None where nothing limits it.

    groups: where control groups are mounted. own: the file that tells of which ones this process is.
    """
    found = [memory for folder, names in _folders(groups, own) if (memory := _memory_of(folder, names))]
    return min(found, default=None)


def _folders(groups: Path, own: Path) -> list[tuple[Path, tuple[str, str, str]]]:
    """This process' group and those around it, with the names of their files."""
    try:
        lines = own.read_text(encoding="utf-8").splitlines()
    except OSError:
        return []
    folders: list[tuple[Path, tuple[str, str, str]]] = []
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers and "memory" not in controllers.split(","):
            continue
        top, names = (groups / "memory", _VERSION_1) if controllers else (groups, _VERSION_2)
        # Within a container the path may be that of the machine outside: then only the top is there.
        inner = top / path.strip("/")
        around = [inner, *inner.parents]
        folders += [(folder, names) for folder in around[: around.index(top) + 1]]
    return folders


def _memory_of(folder: Path, names: tuple[str, str, str]) -> tuple[int, int] | None:
    """Free bytes and limit of one group; None where it has no limit or tells nothing."""
    limit_name, use_name, cache_name = names
    try:
        limit, used = (int((folder / name).read_text(encoding="utf-8")) for name in (limit_name, use_name))
        statistics = dict(line.split() for line in (folder / "memory.stat").read_text(encoding="utf-8").splitlines())
    except (OSError, ValueError):  # "max" is no number: no limit
        return None
    return max(0, limit - used + int(statistics.get(cache_name, 0))), limit
