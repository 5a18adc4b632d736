"""A ready topology of layer 3, for `mn` and for Python.

    mn --custom topologies/layer3.py --topo layer3 --controller nva --test pingall
    mn --custom topologies/layer3.py --topo layer3,tasks=3,underlay=ipv6,routing=1 --controller nva

Networks of two tenants' routers:

| network | kind | VNI | router | addresses |
|---|---|---|---|---|
| tasks | l3 | 100 | one | 10.1.n.0/24 and 2001:db8:1:n::/64 belong to the n-th NVE; tasks keep theirs by host routes |
| mobile | l3 | 200 | one | 10.2.n.0/24; 2001:db8:5:2::/64 belongs to no NVE: its addresses move by ILA |
| office | l2 | 300 | one | 10.3.0.0/24, 2001:db8:3::/64, gateway .254 and ::fe |
| other | l3 | 400 | two | the addresses of `tasks` again |

Tasks task1, task2, ... (network tasks) and mob1, mob2, ... (mobile) begin at nve1. At every NVE there is a client of
`tasks` (cli1, cli2, ...) and one of `mobile` (far1, ...); desk1 and desk2 of `office` are at the first and the last
NVE, alien1 and alien2 of `other` as well.
"""

from __future__ import annotations

import inspect
import os
import sys
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

_HERE = inspect.currentframe()
assert _HERE is not None
_ROOT = os.path.dirname(os.path.dirname(os.path.abspath(_HERE.f_code.co_filename)))
if _ROOT not in sys.path:  # `mn --custom` executes this file's text: there is no package around it
    sys.path.insert(0, _ROOT)
if "__file__" not in globals():
    # Executed by `mn`, whose clean-up after any exception ends processes by name: not from here on
    from topologies import harmless

    harmless.disarm()

from topologies import runner  # noqa: E402
from topologies.errors import TopologyError  # noqa: E402
from topologies.overlay import controllers, hosts, links, switches  # noqa: E402
from topologies.specs import Attachment, Gateway, VMSpec, VNSpec, subnets, task  # noqa: E402
from topologies.topo import OverlayTopo, truth  # noqa: E402

__all__ = ["Layer3Topo", "controllers", "hosts", "links", "networks", "switches", "tasks_of", "topos"]

_OFFICE = "2001:db8:3::"
_SIR = "2001:db8:5:2::"


def networks(
    nves: list[str], ila: bool = True, policies: Mapping[str, dict[str, Any]] | None = None
) -> dict[str, VNSpec]:
    """The four networks by name; without `ila`, the network mobile has subnets like the others."""
    own = {name: dict((policies or {}).get(name, {})) for name in ("tasks", "mobile", "office", "other")}
    mobile = subnets(2, nves)
    specs = [
        VNSpec("tasks", 100, own["tasks"], "l3", subnets=subnets(1, nves), router="one"),
        VNSpec(
            "mobile", 200, own["mobile"], "l3", router="one", sir=f"{_SIR}/64" if ila else None,
            subnets=tuple(one for one in mobile if not ila or ":" not in one[0]),
        ),
        VNSpec("office", 300, own["office"], gateway=Gateway("10.3.0.254", f"{_OFFICE}fe"), router="one"),
        VNSpec("other", 400, own["other"], "l3", subnets=subnets(1, nves), router="two"),
    ]
    return {spec.name: spec for spec in specs}


def tasks_of(vns: dict[str, VNSpec], nves: list[str], tasks: int, attach: Attachment = "tap") -> list[VMSpec]:
    """All guests; see the module's text. Hosts .1 to .99 are tasks, .100 and above clients. `attach`: of tasks."""
    if not 0 <= tasks <= 99:
        raise TopologyError(f"tasks: {tasks} is not within 0 to 99")
    found = []
    for i in range(1, tasks + 1):
        for name, vn in (("task", "tasks"), ("mob", "mobile")):
            found.append(_one(f"{name}{i}", vns[vn], 1, i, nves, attach))
    for n in range(1, len(nves) + 1):
        found += [_one(f"cli{n}", vns["tasks"], n, 100, nves), _one(f"far{n}", vns["mobile"], n, 100, nves)]
    for number, n in ((1, 1), (2, len(nves))):
        found.append(VMSpec(
            f"desk{number}", "office", nves[n - 1], f"02:00:01:2c:00:{number:02x}", f"10.3.0.{number}/24",
            f"{_OFFICE}{number}/64",
        ))
        found.append(_one(f"alien{number}", vns["other"], n, number, nves))
    return found


def _one(name: str, vn: VNSpec, n: int, host: int, nves: list[str], attach: Attachment = "tap") -> VMSpec:
    k = 2 if vn.name == "mobile" else 1
    ipv6 = f"{_SIR}{n:x}:{host:x}" if vn.sir else f"2001:db8:{k}:{n:x}::{host:x}"
    return task(name, vn, nves[n - 1], f"10.{k}.{n}.{host}", ipv6, n << 8 | host, attach=attach)


class Layer3Topo(OverlayTopo):
    """N NVEs, 2 x `tasks` tasks, and clients in four networks; see the module's text.

    underlay: ipv4, ipv6 or both (default). routed: "gre" or "none", or a list of the NVEs that have such a port. ila:
    on unless the underlay is ipv4. routing: the underlay is a router. policies: of networks, by name, in Python; leave:
    of tasks (see VMSpec). Others as for OverlayTopo.
    """

    def build(  # type: ignore[override]  # some of the overlay's parameters are this topology's to decide
        self, nves: int = 3, tasks: int = 1, underlay: str = "both", routed: Any = "gre", ila: object = None,
        policies: Mapping[str, dict[str, Any]] | None = None, leave: Mapping[str, dict[str, Any]] | None = None,
        attach: Attachment = "tap", **params: Any,
    ) -> None:
        names = [f"nve{i}" for i in range(1, nves + 1)]
        with_ila = underlay != "ipv4" if ila is None else truth(ila)
        vns = networks(names, with_ila, policies)
        answers = leave or {}
        vms = [replace(spec, leave=answers.get(spec.name)) for spec in tasks_of(vns, names, tasks, attach)]
        super().build(
            nves=nves, vns=list(vns.values()), vms=vms, underlay=underlay,
            routed=None if routed == "none" else routed, ila=with_ila, **params,
        )


# What `mn --custom` reads besides the classes of the overlay
topos = {"layer3": Layer3Topo}

if "__file__" not in globals():
    # Executed by `mn`, as topologies/overlay.py is; see there
    topos = runner.ending_each(topos)
    Mininet = runner.mininet
    CLI = runner.OverlayCLI
    cleanup = harmless.end
