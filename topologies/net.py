"""The overlay network: Mininet with namespaces, daemons and helpers of its own, and moving VMs."""
# ruff: noqa: N802 (Mininet's names)

from __future__ import annotations

import atexit
import contextlib
import signal
import threading
import weakref
from collections.abc import Sequence
from types import FrameType
from typing import Any

from mininet.log import info, output, warn
from mininet.net import Mininet
from mininet.util import ensureRoot

from topologies.controller import NVA, ControllerAddress
from topologies.errors import ApiError, TopologyError
from topologies.lab import Lab
from topologies.nve import NVE
from topologies.rest import Rest
from topologies.rundir import wait_until
from topologies.specs import Kind, VMSpec, VNSpec
from topologies.tap import QUEUE
from topologies.topo import OverlayTopo
from topologies.underlay import Underlay
from topologies.vm import VM

_live: weakref.WeakSet[OverlayNet] = weakref.WeakSet()
_hooked = False


class OverlayNet(Mininet):  # type: ignore[misc]
    """An overlay of NVEs with VMs, ready to `start()`; also a context manager.

    Either a `topo` or the parameters of OverlayTopo (nves, vms, vns, underlay, overlap, attach, datapath, and kind,
    routed, ila, routing for layer 3).
    controller: (address, port) of the NVA, or a Mininet controller class, or None for NVEs without one.
    rest: base address of the NVA's REST interface, or None; "auto" is http://127.0.0.1:8080 where there is a
    controller, and the controller's own for `NVA`. Other parameters are Mininet's.

    Nothing of it exists in the root namespace; `run` is the directory that records what there is.
    """

    def __init__(
        self, topo: OverlayTopo | None = None, *, controller: Any = ("127.0.0.1", 6653),
        rest: str | None = "auto", nves: int = 3, vms: int | Sequence[VMSpec] = 3,
        vns: int | Sequence[VNSpec] = 1, underlay: str = "ipv4", overlap: bool = False, attach: str = "tap",
        datapath: str | None = None, kind: Kind = "l2", routed: str | Sequence[str] | None = None, ila: bool = False,
        routing: bool = False, queue: int = QUEUE, **params: Any,
    ) -> None:
        ensureRoot()
        # Mininet would now set system-wide limits and sysctls, and later end X terminals by name: not ours to
        # do
        Mininet.inited = True
        if topo is None:
            topo = OverlayTopo(
                nves=nves, vms=vms, vns=vns, underlay=underlay, overlap=overlap, attach=attach, datapath=datapath,
                kind=kind, routed=routed, ila=ila, routing=routing, queue=queue,
            )
        if rest == "auto":
            self.rest = Rest("http://127.0.0.1:8080") if controller else None
        else:
            self.rest = Rest(rest) if rest else None
        self._rest_wanted = rest
        self.lab = Lab()
        self.run_dir = self.lab.run.path
        self.vms: list[VM] = []
        self.nves: list[NVE] = []
        self._stopped = False
        _live.add(self)
        _hook()
        if isinstance(controller, tuple):
            ip, port = controller
            controller = _address_class(ip, port)
        try:
            super().__init__(topo=topo, controller=controller, **params)
        except BaseException:
            self.stop()
            raise

    # --- building -------------------------------------------------------------------------------------

    def addHost(self, name: str, cls: Any = None, **params: Any) -> Any:
        vm = super().addHost(name, cls=cls or VM, lab=self.lab, **params)
        if isinstance(vm, VM):
            vm.net = self
            self.vms.append(vm)
        return vm

    def addSwitch(self, name: str, cls: Any = None, **params: Any) -> Any:
        node = super().addSwitch(name, cls=cls or NVE, lab=self.lab, **params)
        if isinstance(node, NVE):
            self.nves.append(node)
        return node

    def addController(self, name: Any = "c0", controller: Any = None, **params: Any) -> Any:
        if isinstance(controller, type) and issubclass(controller, NVA):
            params["lab"] = self.lab
        added = super().addController(name, controller, **params)
        if isinstance(added, NVA) and self._rest_wanted == "auto":
            self.rest = Rest(added.rest)
        return added

    def startTerms(self) -> None:
        raise TopologyError("terminals are not supported; use: ip netns exec <namespace> <command>")

    def stopXterms(self) -> None:
        """Mininet ends X tunnels by name here; there are none."""

    # --- life -----------------------------------------------------------------------------------------

    def start(self) -> None:
        """Start controllers and switches, and wait for the underlay; on any failure everything is taken down again."""
        try:
            super().start()
            for one, other in zip(self.nves, [*self.nves[1:], *self.nves[:1]], strict=True):
                if one is not other:
                    wait_until(lambda a=one, b=other: a.reaches(b), 10, f"the underlay from {one.name} to {other.name}")
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """Take everything down. Safe to call twice, also after an interruption, and on a net built only in part."""
        if self._stopped:
            return
        try:
            if hasattr(self, "terms"):  # Mininet's constructor got as far as that
                super().stop()
        finally:
            self.lab.close()
        self._stopped = True
        _live.discard(self)

    def __enter__(self) -> OverlayNet:
        self.start()
        return self

    def __exit__(self, *_exc: object) -> None:
        self.stop()

    # --- looking things up ----------------------------------------------------------------------------

    def nve(self, which: NVE | str) -> NVE:
        """An NVE by name. Raises TopologyError where there is none."""
        for nve in self.nves:
            if which is nve or which == nve.name:
                return nve
        raise TopologyError(f"no NVE {which!r}; there are {', '.join(nve.name for nve in self.nves)}")

    def vm(self, name: str) -> VM:
        """A VM by name. Raises TopologyError where there is none."""
        for vm in self.vms:
            if vm.name == name:
                return vm
        raise TopologyError(f"no VM {name!r}; there are {', '.join(vm.name for vm in self.vms)}")

    @property
    def underlay(self) -> Underlay:
        """The network between the NVEs."""
        return next(switch for switch in self.switches if isinstance(switch, Underlay))

    # --- the NVA --------------------------------------------------------------------------------------

    def need_rest(self) -> Rest:
        """The REST client. Raises TopologyError where the net was made without one."""
        if self.rest is None:
            raise TopologyError("this needs the NVA's REST interface: OverlayNet(rest='http://...')")
        return self.rest

    def register(self, attachments: bool = True) -> None:
        """Tell the NVA about every NVE, VN and VM. Raises ApiError.

        With `attachments` every VM may announce itself at every NVE; else only requested moves are believed.
        """
        self.need_rest().register(self, attachments)

    def wait_for_nva(self, seconds: float = 20.0) -> None:
        """Wait until every NVE has its OpenFlow connection. Raises NotReady."""
        for nve in self.nves:
            wait_until(nve.connected, seconds, f"{nve.name}: the OpenFlow connection", every=0.05)

    def try_register(self) -> bool:
        """Register if the NVA answers; a warning, not an error, if it does not (for `mn`)."""
        try:
            self.register()
        except ApiError as exc:
            warn(f"*** The topology is not registered with the NVA: {exc}\n")
            return False
        info("*** Registered NVEs, networks and VMs with the NVA\n")
        return True

    # --- Mininet's tests, inside each VN and between VNs of one router -----------------------------------

    def ping(self, hosts: Sequence[VM] | None = None, timeout: float | str | None = None) -> float:
        """Ping between all VMs that are meant to reach each other, IPv4 and IPv6. Returns the loss in per cent."""
        hosts = self.vms if hosts is None else hosts
        wait = ["-W", str(timeout)] if timeout else ["-W", "1"]
        sent = lost = 0
        for one in hosts:
            output(f"{one.name} -> ")
            for other in hosts:
                if other is one or not one.vn.reaches(other.vn):
                    continue
                results = []
                shared = ((one.spec.ip, other.spec.ip), (one.spec.ip6, other.spec.ip6))
                for address in (theirs for mine, theirs in shared if mine and theirs):
                    _, _, code = one.pexec(["ping", "-c", "1", *wait, address])
                    sent, lost = sent + 1, lost + bool(code)
                    results.append("X" if code else address)
                output(f"{other.name}({' '.join(results)}) ")
            output("\n")
        loss = 100.0 * lost / sent if sent else 0.0
        output(f"*** Results: {loss:.0f}% dropped ({sent - lost}/{sent} received)\n")
        return loss

    def await_pings(self, hosts: Sequence[VM] | None = None, seconds: float = 30.0) -> None:
        """Ping between all VMs that are meant to reach each other, until not one ping is lost. Raises NotReady."""
        who = ", ".join(vm.name for vm in hosts) if hosts else "all VMs"
        wait_until(lambda: self.ping(hosts) == 0.0, seconds, f"pings between {who}", 0.1)


def _address_class(ip: str, port: int) -> Any:
    def make(name: str, **_params: Any) -> ControllerAddress:
        return ControllerAddress(name, ip, port)

    return make


def stop_all() -> None:
    """Stop every net of this process that still runs."""
    for net in list(_live):
        with contextlib.suppress(Exception):  # the next one must be stopped in any case
            net.stop()


def _on_signal(number: int, _frame: FrameType | None) -> None:
    raise SystemExit(128 + number)


def _hook() -> None:
    """Stop what runs at exit, also after SIGTERM and SIGHUP (a SIGINT is Python's KeyboardInterrupt already)."""
    global _hooked
    if _hooked:
        return
    _hooked = True
    atexit.register(stop_all)
    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGTERM, signal.SIGHUP):
            if signal.getsignal(number) is signal.SIG_DFL:
                signal.signal(number, _on_signal)
