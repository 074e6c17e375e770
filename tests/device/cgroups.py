"""Control groups of Linux as files."""

from __future__ import annotations


def group(folder, limit, used, cache=0, *, version=2):
    """Write what a group of a container tells: its limit, its use and what of that is cache, in bytes."""
    limit_name, use_name, cache_name = {
        2: ("memory.max", "memory.current", "inactive_file"),
        1: ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
    }[version]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / limit_name).write_text(f"{limit}\n")
    (folder / use_name).write_text(f"{used}\n")
    (folder / "memory.stat").write_text(f"anon {used}\nfile {cache}\n{cache_name} {cache}\n")
