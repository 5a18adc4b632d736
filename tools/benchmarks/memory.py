"""(f) What a VM costs in memory, and how long a start with many takes."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from . import overlay
from .controller import Vmm
from .machine import resident
from .report import Part, number

NVES = 100
NETWORKS = 100


def measure(count: int, say: Callable[[str], None]) -> Part:
    """An NVA without VMs, the same with ``count``, and one started with those in its store."""
    with tempfile.TemporaryDirectory(prefix="vmm-bench-") as name:
        folder = Path(name)
        with Vmm(folder) as empty:
            empty.register("nves", [overlay.nve_body(n) for n in range(1, NVES + 1)])
            empty.register("networks", [overlay.network_body(f"vn{n}", n) for n in range(1, NETWORKS + 1)])
            before = resident(empty.pid)
            started_empty = empty.startup
            guests = [overlay.Guest(n, 1 + n % NVES, f"vn{1 + n // NVES % NETWORKS}") for n in range(1, count + 1)]
            start = time.monotonic()
            empty.register("vms", [guest.body() for guest in guests])
            registering = time.monotonic() - start
            loaded = resident(empty.pid)
            say(f"{count} VMs registered in {registering:.1f} s")
        disk = sum(file.stat().st_size for file in folder.glob("nva.sqlite*"))
        with Vmm(folder) as full:
            restarted = full.startup
            after = resident(full.pid)
            known = full.get(f"/vms/vm{count}")["name"]
        say(f"restarted with {known} in {restarted:.1f} s")
    data = {
        "vms": count,
        "empty_bytes": before,
        "loaded_bytes": loaded,
        "restarted_bytes": after,
        "bytes_per_vm_loaded": (loaded - before) / count,
        "bytes_per_vm_restarted": (after - before) / count,
        "store_bytes_per_vm": disk / count,
        "startup_empty_seconds": started_empty,
        "startup_seconds": restarted,
        "registering_seconds": registering,
    }
    rows = [
        ["memory of an NVA without VMs, MiB", f"{before / 2**20:.0f}"],
        [f"memory with {number(count)} VMs, MiB", f"{after / 2**20:.0f}"],
        ["memory per VM, bytes", number((after - before) / count)],
        ["memory per VM in the process that registered them, bytes", number((loaded - before) / count)],
        ["store per VM, bytes", number(disk / count)],
        ["start-up without VMs, s", f"{started_empty:.1f}"],
        [f"start-up with {number(count)} VMs, s", f"{restarted:.1f}"],
        [f"registering {number(count)} VMs over REST, s", f"{registering:.1f}"],
    ]
    notes = [
        f"{NVES} NVEs, {NETWORKS} networks, one interface with a MAC and an IPv4 address per VM, no switch connected. "
        "Memory is the process's proportional set size; start-up is from exec to ready over REST."
    ]
    return Part("memory", f"Memory and start-up with {number(count)} VMs", ["what", "figure"], rows, notes, data)
