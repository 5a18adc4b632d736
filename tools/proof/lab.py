"""An overlay of real NVEs under an authority of its own: started, registered, in sync, and pinged through."""

from __future__ import annotations

import contextlib
import re
import tempfile
import time
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

from ryu_vmm.tables import Drop, Why, cookie
from topologies import VM, OverlayNet, OverlayTopo, VMSpec, VNSpec
from topologies.errors import ApiError
from topologies.rest import vm_body
from topologies.rundir import wait_until
from topologies.tap import QUEUE

from .authority import Authority

_SETTLING = 20.0


def wall_clock() -> float:
    """Seconds since the epoch at the monotonic clock's zero, so that one clock's times can be put on the other."""
    found = []
    for _ in range(5):  # whoever is interrupted between two readings is wrong by as much: take the closest
        before, wall, after = time.monotonic(), time.time(), time.monotonic()
        found.append((after - before, wall - before))
    return min(found)[1]


class Lab:
    """A context manager; `net` is the overlay and `nva` the authority.

    Args:
        underlay: ipv4, ipv6 or both.
        nves: how many.
        vms: how many, dealt out to networks and NVEs in turn, or a list of VMSpec.
        vns: how many, or a list of VNSpec.
        overlap: all networks use the same addresses.
        attached: names of networks whose VMs are registered with every NVE as a place where they may show up.
        register: False leaves registering to the caller.
        folder: for the authority's files; a temporary one by default.
        topo: another topology than those parameters describe.
        queue: frames that VMs' taps at hypervisors hold while nobody reads them.
        token: what it shows the authority, where that asks who is there.
        ping: registering ends with pings between all that are meant to reach each other.
        options: lines of the [vmm] group of the authority's configuration.
    """

    def __init__(
        self,
        underlay: str = "ipv4",
        nves: int = 4,
        vms: int | Sequence[VMSpec] = 3,
        vns: int | Sequence[VNSpec] = 1,
        overlap: bool = False,
        attached: Collection[str] = (),
        register: bool = True,
        folder: Path | None = None,
        topo: OverlayTopo | None = None,
        ping: bool = True,
        queue: int = QUEUE,
        token: str | None = None,
        **options: object,
    ) -> None:
        self._token = token
        self._attached, self._register, self._folder, self._ping = attached, register, folder, ping
        self._options = options
        self.underlay = topo.underlay if topo is not None else underlay
        self._wanted: dict[str, Any] = {"topo": topo} if topo is not None else {
            "underlay": underlay, "nves": nves, "vms": vms, "vns": vns, "overlap": overlap, "queue": queue,
        }
        self._stack = contextlib.ExitStack()
        self.nva: Authority
        self.net: OverlayNet

    def __enter__(self) -> Lab:
        with contextlib.ExitStack() as stack:
            folder = self._folder or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="ryu_vmm-proof-")))
            self.nva = stack.enter_context(Authority(folder, **self._options))
            self.net = stack.enter_context(
                OverlayNet(controller=self.nva.address, rest=self.nva.base, **self._wanted)
            )
            self.nva.rest.token = self.net.need_rest().token = self._token
            self.net.wait_for_nva()
            if self._register:
                self.register()
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *details: Any) -> None:
        self._stack.__exit__(*details)

    # --- registering --------------------------------------------------------------------------------------------------
    def register(self) -> None:
        """Register everything, wait until it is in the switches, and ping."""
        for nve in self.net.nves:
            self.net.need_rest().add_nve(nve)
        for vn in self.net.topo.vn_specs:
            self.net.need_rest().add_network(vn)
        for spec in self.net.topo.vm_specs:
            self.post("/vms", self.body(spec))
        self.await_synced()
        if not self._ping:
            return
        # Switches confirm flows a little before they forward by them, and find their underlay neighbors by themselves
        self.net.await_pings(seconds=_SETTLING)

    def body(self, spec: VMSpec, **interface: Any) -> dict[str, Any]:
        """What registers a VM; `interface` overrides."""
        if spec.vn in self._attached and "attachments" not in interface:
            interface["attachments"] = [{"nve": nve.name, "port": spec.port} for nve in self.net.nves]
        return vm_body(spec, **interface)

    # --- talking to the authority -------------------------------------------------------------------------------------
    def get(self, path: str) -> Any:
        """A document below /v1."""
        return self.nva.rest.call("GET", path)

    def post(self, path: str, body: Any = None) -> Any:
        """The answer to a POST below /v1."""
        return self.nva.rest.call("POST", path, body)

    def refused(self, method: str, path: str, body: Any = None) -> ApiError:
        """The refusal of a request that ought to be refused."""
        try:
            answer = self.nva.rest.call(method, path, body)
        except ApiError as error:
            return error
        raise AssertionError(f"{method} {path} was not refused but answered with {answer}")

    def move(self, number: str | int | None) -> dict[str, Any]:
        """A move's document."""
        found: dict[str, Any] = self.get(f"/moves/{number}")
        return found

    def await_state(self, number: str | int | None, *states: str, seconds: float = _SETTLING) -> dict[str, Any]:
        """A move's document, once it is in one of these states. Raises NotReady."""

        def reached() -> dict[str, Any] | None:
            document = self.move(number)
            return document if document["state"] in states else None

        document: dict[str, Any] = wait_until(reached, seconds, f"move {number}: {' or '.join(states)}", 0.02)
        return document

    def await_closed(self, number: str | int | None, seconds: float = _SETTLING) -> dict[str, Any]:
        """A move's document, once it has ended and the switches have confirmed that. Raises NotReady."""

        def closed() -> dict[str, Any] | None:
            document = self.move(number)
            return document if not document["open"] and document["ledger"]["closed"] else None

        document: dict[str, Any] = wait_until(closed, seconds, f"move {number}: the end", 0.02)
        return document

    def newest_move(self) -> int:
        """The number of the newest move; 0 where there is none."""
        items = self.get("/moves?limit=1")["items"]
        return int(items[0]["id"]) if items else 0

    def await_synced(self, seconds: float = _SETTLING) -> None:
        """Wait until every NVE holds all that it was programmed with. Raises NotReady."""
        self.net.need_rest().await_synced((nve.name for nve in self.net.nves), seconds)

    def verify(self, moving: bool = False) -> list[str]:
        """Compare every switch's flows with the desired state; what is wrong, in words.

        moving: a move is open, so there may be a redirect.
        """
        wrong = []
        for nve in self.net.nves:
            found = self.post(f"/nves/{nve.name}/verify")
            if not found["in_sync"]:
                wrong.append(f"{nve.name} is not in sync: {'; '.join(found['differences'][:5])}")
            if moving:
                continue
            if found["tunnel_to_tunnel"]:
                wrong.append(f"{nve.name} sends from tunnel to tunnel: {found['tunnel_to_tunnel']}")
            # not the NVA's word alone: what the switch itself lists as sent back where it came from, other than answers
            # to guests: these match only what the first table has not marked as having come from a tunnel
            back = [flow for flow in nve.flows() if "IN_PORT" in flow]
            if not all("metadata=0/0x1," in flow and re.search(r"\btable=[1-9]", flow) for flow in back):
                wrong.append(f"{nve.name} has a flow to IN_PORT")
        return wrong

    def dropped(self, cause: Drop) -> int:
        """Packets dropped for that cause, over all switches, by the switches' own word."""
        found = 0
        for nve in self.net.nves:
            text = nve.ofctl("dump-flows", f"cookie={cookie(Why.DROP, cause):#x}/-1")
            found += sum(int(number) for number in re.findall(r"n_packets=(\d+)", text))
        return found

    def await_dropped(self, cause: Drop, least: int, seconds: float = 5.0) -> None:
        """Wait until so many packets have been dropped for that cause. Raises NotReady."""
        wait_until(lambda: self.dropped(cause) >= least, seconds, f"{least} packets dropped as {cause.name}", 0.05)

    # --- places -------------------------------------------------------------------------------------------------------
    def vm(self, name: str) -> VM:
        """A VM."""
        return self.net.vm(name)

    def next_nve(self, vm: VM, step: int = 1) -> str:
        """The NVE that follows the VM's, round and round."""
        names: list[str] = [nve.name for nve in self.net.nves]
        return names[(names.index(vm.nve.name) + step) % len(names)]
