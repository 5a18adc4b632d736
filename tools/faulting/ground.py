"""Where faults happen: four NVEs with a VM that stays at each, a VM that moves, and traffic between them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

from proof.lab import Lab

from topologies import NVE, VM, VMSpec, VNSpec, netns
from topologies.errors import ApiError, NotReady
from topologies.rundir import wait_until
from topologies.traffic.session import Family, Pair, UdpSession, both_ways

if TYPE_CHECKING:
    from .staged import Staged

RATE = 150.0  # datagrams per second of each flow
NVES = 4
MOVER = "vm1"
#: Seconds for whatever has to come right again after a fault.
PATIENCE = 40.0
_NEIGHBORS = ("base_reachable_time_ms", "delay_first_probe_time")


def neighbors(reachable_ms: int, delay: int) -> dict[str, object]:
    """Sysctls of a guest: how long it trusts what it knows of a neighbor, then how long it waits before it asks."""
    values = zip(_NEIGHBORS, (reachable_ms, delay), strict=True)
    return {f"net/ipv{family}/neigh/eth0/{what}": value for what, value in values for family in (4, 6)}


#: Guests do not ask again while a VM is paused for longer than a hypervisor would: that would be their own loss.
TRUSTING = neighbors(900_000, 60)
#: Open vSwitch asks a silent controller after so many milliseconds: longer than any channel is held up here.
_INACTIVITY = 60_000


def specs(movers: int = 1) -> list[VMSpec]:
    """VMs that move (vm1, ...), then one that stays at each NVE (at1, ...); all in one network."""
    found = []
    for n in range(movers + NVES):
        name, nve = (f"vm{n + 1}", n % NVES + 1) if n < movers else (f"at{n - movers + 1}", n - movers + 1)
        found.append(VMSpec(
            name, "vn1", f"nve{nve}", f"02:00:00:00:00:{n + 1:02x}", f"10.0.0.{n + 1}/24", f"2001:db8::{n + 1:x}/64",
        ))
    return found


class Ground(Lab):
    """The lab of the fault scenarios.

    Args:
        movers: how many VMs move.
        attached: whether these may show up at any NVE unasked.
        folder: for the authority's files.
        underlay: ipv4 or ipv6.
        pull: whether NVEs ask for locations when they need them, instead of being told all.
        options: lines of the [vmm] group of the authority's configuration.
    """

    def __init__(
        self, movers: int = 1, attached: bool = False, folder: Path | None = None, underlay: str = "ipv4",
        pull: bool = False, **options: object,
    ) -> None:
        times: dict[str, Any] = {"quiet_time": 2.0, "steer_deadline": 30.0, "prepare_deadline": 30.0, **options}
        network = VNSpec("vn1", 100, {"distribution": "pull"} if pull else {})
        super().__init__(
            underlay, NVES, specs(movers), [network], attached={"vn1"} if attached else (), folder=folder, **times,
        )
        self.movers = [f"vm{n + 1}" for n in range(movers)]
        #: For what has to happen meanwhile. It lives as long as this: an NVA ends with the thread that started it.
        self.hand = ThreadPoolExecutor(1)

    def __enter__(self) -> Ground:
        super().__enter__()
        for nve in self.net.nves:
            nve.vsctl("set", "Controller", "br-int", f"inactivity_probe={_INACTIVITY}")
        for vm in self.net.vms:
            netns.sysctl(vm.namespace, TRUSTING)
        return self

    def __exit__(self, *details: Any) -> None:
        try:
            super().__exit__(*details)
        finally:
            self.hand.shutdown()

    # --- who is where -------------------------------------------------------------------------------------------------
    def staying(self, nve: NVE | str) -> VM:
        """The VM that stays at an NVE."""
        return self.vm(f"at{getattr(nve, 'name', nve).removeprefix('nve')}")

    def directory(self, vm: str) -> tuple[str, str]:
        """(NVE, port) where the NVA has a VM."""
        interface = self.get(f"/vms/{vm}")["interfaces"][0]
        return interface["nve"], interface["port"]

    # --- traffic ------------------------------------------------------------------------------------------------------
    def traffic(self, staged: Staged) -> list[Pair]:
        """All that is sent while a move meets a fault, both ways.

        Between the VM that moves and its neighbor at the source, one at a correspondent NVE (IPv4 and IPv6) and one at
        the holder (IPv4); and between the latter two, which the move does not concern.
        """
        vm, at = staged.vm, self.staying
        neighbor, correspondent, holder = at(staged.source), at(staged.correspondent), at(staged.holder)
        families: tuple[Family, Family] = (4, 6)
        found = [pair for one in (neighbor, correspondent) for family in families
                 for pair in both_ways(vm, one, family, RATE)]
        return [*found, *both_ways(vm, holder, 4, RATE), *both_ways(correspondent, holder, 4, RATE)]

    def session(self, pairs: Sequence[Pair]) -> UdpSession:
        """Traffic, once every VM knows its partners' MAC addresses: what a guest drops before it does is not ours."""
        for pair in pairs:
            to = pair.target.spec.ip if pair.family == 4 else pair.target.spec.ip6

            def answered(pair: Pair = pair, to: str | None = to) -> bool:
                return bool(pair.source.pexec(["ping", "-c", "1", "-W", "1", to])[2] == 0)

            wait_until(answered, 10, f"{pair.name}: a ping")
        return UdpSession(pairs, quiet=0.4)

    # --- an authority that may be dead --------------------------------------------------------------------------------
    def insist(self, method: str, path: str, body: Any = None, seconds: float = PATIENCE) -> Any:
        """The answer to a request, asked again while nobody answers. Raises ApiError where it is refused, NotReady."""
        answer: list[Any] = []

        def asked() -> bool:
            try:
                answer.append(self.nva.rest.call(method, path, body))
            except ApiError as error:
                if error.status in (0, 503):
                    return False
                raise
            return True

        wait_until(asked, seconds, f"{method} {path}: an answer", 0.05)
        return answer[0]

    def await_all_synced(self, but: Sequence[str] = ()) -> None:
        """Wait until every NVE holds all that it was programmed with, some left out. Raises NotReady."""
        names = {nve.name for nve in self.net.nves} - set(but)

        def synced() -> bool:
            known = {nve["name"]: nve for nve in self.insist("GET", "/nves")["items"]}
            return all(
                known[n]["in_sync"] and known[n]["generation"]["programmed"] == known[n]["generation"]["realised"]
                for n in names
            )

        wait_until(synced, PATIENCE, f"{', '.join(sorted(names))} in sync", 0.02)

    def await_nve(self, name: str, connected: bool, seconds: float = PATIENCE) -> None:
        """Wait until the NVA has noticed that an NVE is there, or is not. Raises NotReady."""
        def noticed() -> bool:
            return bool(self.insist("GET", f"/nves/{name}")["connected"]) is connected

        wait_until(noticed, seconds, f"{name}: {'connected' if connected else 'disconnected'}", 0.02)

    def open_moves(self) -> list[dict[str, Any]]:
        """The moves that have not ended."""
        return [move for move in self.get("/moves")["items"] if move["open"]]

    def await_ended(self, seconds: float = PATIENCE) -> list[dict[str, Any]]:
        """Wait until no move is open; what is left open then."""
        await_true(lambda: not self.open_moves(), seconds)
        return self.open_moves()


def await_true(condition: Callable[[], object], seconds: float) -> bool:
    """Whether a condition came true within so many seconds."""
    try:
        wait_until(condition, seconds, "", 0.02)
    except NotReady:
        return False
    return True
