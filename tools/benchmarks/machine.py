"""Where the figures come from: the machine, the versions, the day."""

from __future__ import annotations

import datetime
import os
import platform
import subprocess
from importlib import metadata
from pathlib import Path

#: The controller has one processor, the emulated switches another; with only one they share it.
CPUS = sorted(os.sched_getaffinity(0))
CONTROLLER_CPU = CPUS[0]
SWITCHES_CPU = CPUS[1 % len(CPUS)]


def facts() -> dict[str, str]:
    """What to print beside any figure."""
    return {
        "date": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "cpu": f"{_cpu_model()}, {len(CPUS)} processors",
        "memory": f"{os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 2**30:.0f} GiB",
        "kernel": platform.release().split("-")[0],
        "python": platform.python_version(),
        "ryu_vmm": metadata.version("ryu-vmm"),
        "ryu": metadata.version("ryu"),
        "eventlet": metadata.version("eventlet"),
        "open vswitch": _openvswitch(),
        "load before": f"{os.getloadavg()[0]:.2f}",
    }


def _cpu_model() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith(("model name", "Model")):
            return line.split(":", 1)[1].strip()
    return platform.machine()


def _openvswitch() -> str:
    try:
        found = subprocess.run(["ovs-vswitchd", "--version"], capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return "none"
    return found.stdout.split("\n", 1)[0].rsplit(" ", 1)[-1]


def resident(pid: int) -> int:
    """Bytes of memory that a process has to itself: its proportional share (PSS), or RSS where that is unknown."""
    try:
        text = Path(f"/proc/{pid}/smaps_rollup").read_text()
        wanted = "Pss:"
    except OSError:
        text = Path(f"/proc/{pid}/status").read_text()
        wanted = "VmRSS:"
    return next(int(line.split()[1]) * 1024 for line in text.splitlines() if line.startswith(wanted))


def cpu_seconds(pid: int) -> float:
    """Processor time that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
