"""An overlay with an NVA, an agent on each NVE, clients in VMs, and a task that serves them."""

from __future__ import annotations

import contextlib
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from proof.lab import Lab

from ryu_vmm.cli.tokens import token_in
from ryu_vmm.credentials import Entry, File, new_token, save
from topologies import OverlayTopo, VMSpec, VNSpec
from topologies.specs import subnets, task
from topologies.tasking import Agents, Clients, StreamTask

ADDRESSES = {4: "10.0.0.100/24", 6: "2001:db8::100/64"}
#: In a network of layer 3: IPv4 by host routes, IPv6 by ILA; and addresses that belong to the first NVE's subnets.
ROUTED = {4: "10.2.1.100/32", 6: "2001:db8:5:2::1:100/128"}
OWNED = {4: "10.2.1.101/32", 6: "2001:db8:2:1::101/128"}
_SIR = "2001:db8:5:2"
MAC = "02:00:00:00:01:00"  # of every task, one after the other: clients remember whose address that is
NVES = ("nve1", "nve2", "nve3")


def mobile(owned: bool) -> VNSpec:
    """A network of layer 3. Its IPv6 addresses are identifiers, or with ``owned`` those of the NVEs' subnets."""
    mine = tuple(one for one in subnets(2, NVES) if owned or ":" not in one[0])
    return VNSpec("vn1", 200, {"leave": {"answer": "unreachable", "seconds": 30}}, "l3", subnets=mine,
                  sir=None if owned else f"{_SIR}::/64")


def layer3(underlay: str, owned: bool) -> OverlayTopo:
    """Three NVEs with all ways to carry packets of such a network, clients on the second and the third."""
    vn = mobile(owned)
    vms = [
        task(f"vm{n}", vn, f"nve{n}", f"10.2.{n}.{n}", f"2001:db8:2:{n}::{n}" if owned else f"{_SIR}::{n}:{n}", n)
        for n in (2, 3)
    ]
    return OverlayTopo(nves=3, vns=[vn], vms=vms, underlay=underlay, routed="gre", ila=not owned)


def tokens(folder: Path, nves: Sequence[str]) -> dict[str, str]:
    """Make a credentials file with an admin, ops, and a hypervisor for each NVE; files with their tokens, by name."""
    made, entries = {}, []
    for name in ("ops", *nves):
        token, key = new_token()
        role: dict[str, Any] = {"role": "admin"} if name == "ops" else {"role": "hypervisor", "nves": [name]}
        entries.append(Entry(name=name, tokens=[key], **role))
        path = folder / f"{name}.token"
        path.write_text(f"{token}\n")
        path.chmod(0o600)
        made[name] = str(path)
    save(folder / "credentials.json", File(principals=entries))
    return made


def _client(number: int) -> VMSpec:
    return VMSpec(
        f"vm{number}", "vn1", f"nve{number}", f"02:00:00:00:00:{number:02x}", f"10.0.0.{number}/24",
        f"2001:db8::{number:x}/64",
    )  # fmt: skip


class TaskLab:
    """A context manager. Clients are on the second and third NVE; the task starts on the first.

    Args:
        underlay: ipv4, ipv6 or both.
        kind: l2; l3 (see ``mobile``); or owned, the same with subnets of the NVEs in both families.
        folder: for the NVA's files.
        times: of the agents (definition.Times).
        secured: the NVA asks who is there; every agent has a token of its own, for its NVE alone.
        options: of the NVA.
    """

    def __init__(
        self, underlay: str = "ipv4", folder: Path | None = None, times: dict[str, float] | None = None,
        kind: str = "l2", secured: bool = False, **options: Any,
    ) -> None:
        self.kind = kind
        self._folder = tempfile.TemporaryDirectory(prefix="ryu_vmm-tokens-") if secured else None
        self.tokens: dict[str, str] = {}
        if self._folder is not None:
            path = Path(self._folder.name)
            self.tokens = tokens(path, NVES)
            options = {"credentials": path / "credentials.json", "token": token_in(self.tokens["ops"]), **options}
        topo = OverlayTopo(nves=3, vms=[_client(2), _client(3)], vns=[VNSpec("vn1", 100)], underlay=underlay)
        if kind != "l2":
            topo = layer3(underlay, kind == "owned")
        self.lab = Lab(topo=topo, folder=folder, **{"quiet_time": 1.0, **options})
        self._times = times or {}
        self._stack = contextlib.ExitStack()
        self.agents: Agents
        self._tasks = 0

    def __enter__(self) -> TaskLab:
        with contextlib.ExitStack() as stack:
            stack.enter_context(self.lab)
            files = {name: path for name, path in self.tokens.items() if name in NVES}
            self.agents = stack.enter_context(Agents(self.lab.net, self.lab.nva.base, files, **self._times))
            self._stack = stack.pop_all()
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if error is not None:
            for name, agent in self.agents.on.items():
                words = agent.log.read_text(errors="replace") if agent.log.exists() else ""
                error.add_note(f"the agent of {name}:\n{words[-3000:]}")
        self._stack.__exit__(None if error is None else type(error), error, None)
        if self._folder is not None:
            self._folder.cleanup()

    def task(self, families: tuple[int, ...] = (4, 6), rate: float = 20.0, size: int = 256) -> StreamTask:
        """A new task with addresses of these families, not run yet."""
        self._tasks += 1
        given = {"l2": ADDRESSES, "l3": ROUTED, "owned": OWNED}[self.kind]
        interface: dict[str, Any] = {"network": "vn1", "mac": MAC, "addresses": [given[one] for one in families]}
        if self.kind != "l2":
            hops = {4: "169.254.1.1", 6: "fe80::1"}
            interface["routes"] = [{"via": hops[one], "onlink": True} for one in families]
        return StreamTask(self.agents, f"task{self._tasks}", [interface], rate, size)

    def clients(self, task: StreamTask, count: int, reconnect: bool = False, vms: tuple[str, ...] = ("vm2", "vm3"),
                rate: float = 20.0, size: int = 256) -> Clients:  # fmt: skip
        """Clients of a task: `count` connections from each VM to each of its addresses."""
        return Clients([self.lab.vm(vm) for vm in vms], task.addresses, count, rate, size, reconnect)


def onward(nve: str) -> str:
    """The NVE after one, round and round."""
    return NVES[(NVES.index(nve) + 1) % len(NVES)]


def say(text: str) -> None:
    """What is going on, to standard error."""
    print(f"tasks: {text}", file=sys.stderr, flush=True)
