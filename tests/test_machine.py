"""What the operating system lets a process use, read from trees of files made for the purpose."""

from __future__ import annotations

import pytest

from msr_enhance import machine


def system(root, files):
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


MEMINFO = {"proc/meminfo": "MemTotal: 1000000 kB\nMemFree: 10 kB\nMemAvailable: 600000 kB\n"}
V1 = {"proc/self/cgroup": "4:memory:/job/a\n1:cpu,cpuacct:/job/a\n0::/\n"}
V2 = {"proc/self/cgroup": "0::/job/a\n"}


@pytest.mark.parametrize(
    ("files", "total", "free"),
    [
        ({}, 1_024_000_000, 614_400_000),
        ({**V2, "sys/fs/cgroup/job/a/memory.max": "max"}, 1_024_000_000, 614_400_000),
        (
            {
                **V2,
                "sys/fs/cgroup/job/memory.max": "500000000",
                "sys/fs/cgroup/job/memory.current": "300000000",
                "sys/fs/cgroup/job/memory.stat": "anon 5\ninactive_file 100000000\n",
            },
            500_000_000,
            300_000_000,
        ),
        (
            {
                **V1,
                "sys/fs/cgroup/memory/job/a/memory.limit_in_bytes": "400000000",
                "sys/fs/cgroup/memory/job/a/memory.usage_in_bytes": "100000000",
                "sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712",
            },
            400_000_000,
            300_000_000,
        ),
        ({**V2, "sys/fs/cgroup/memory.max": "broken"}, 1_024_000_000, 614_400_000),
    ],
)
def test_memory_is_what_a_container_may_have(tmp_path, files, total, free):
    assert machine.memory(system(tmp_path, {**MEMINFO, **files})) == (total, free)


def test_an_unknown_system_has_an_unknown_memory(tmp_path):
    assert machine.memory(tmp_path) is None
    assert machine.memory(system(tmp_path, {"proc/meminfo": "nonsense"})) is None


@pytest.mark.parametrize(
    ("files", "cores"),
    [
        ({}, 8),
        ({**V2, "sys/fs/cgroup/job/a/cpu.max": "max 100000"}, 8),
        ({**V2, "sys/fs/cgroup/job/a/cpu.max": "150000 100000"}, 1.5),
        ({**V2, "sys/fs/cgroup/job/cpu.max": "400000 100000", "sys/fs/cgroup/cpu.max": "200000 100000"}, 2),
        (
            {
                **V1,
                "sys/fs/cgroup/cpu,cpuacct/job/a/cpu.cfs_quota_us": "50000",
                "sys/fs/cgroup/cpu,cpuacct/job/a/cpu.cfs_period_us": "100000",
            },
            0.5,
        ),
        (
            {
                **V1,
                "sys/fs/cgroup/cpu/job/a/cpu.cfs_quota_us": "-1",
                "sys/fs/cgroup/cpu/job/a/cpu.cfs_period_us": "100000",
            },
            8,
        ),
    ],
)
def test_cores_are_what_a_container_may_use(monkeypatch, tmp_path, files, cores):
    monkeypatch.setattr(machine.os, "sched_getaffinity", lambda _: set(range(8)), raising=False)
    assert machine.usable_cores(system(tmp_path, files)) == cores


def test_the_disk_of_a_path_that_is_not_there_yet(tmp_path):
    folder, free = machine.free_disk(tmp_path / "not/yet/there")
    assert folder == tmp_path
    assert free > 0


@pytest.mark.parametrize(
    ("number", "text"),
    [(0, "0 B"), (999, "999 B"), (12_345, "12.3 kB"), (12_487_168_000, "12.5 GB"), (3e15, "3,000.0 TB")],
)
def test_sizes_for_people(number, text):
    assert machine.size_text(number) == text
    assert machine.size_text(float("inf")) == "unknown"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.123, "0.12 s"),
        (42, "42 s"),
        (150, "2.5 min"),
        (3_000, "50 min"),
        (9_000, "2.5 h"),
        (1e6, "12 days"),
    ],
)
def test_times_for_people(seconds, text):
    assert machine.time_text(seconds) == text
    assert machine.time_text(float("nan")) == "unknown"
