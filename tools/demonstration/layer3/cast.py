"""Who is on the stage: three NVEs, two networks of layer 3 behind one router, guests that stay and tasks that move."""

from __future__ import annotations

from typing import Any

from topologies import OverlayTopo, VMSpec, VNSpec
from topologies.specs import Gateway, subnets, task

NVES = ("nve1", "nve2", "nve3")
#: Where there are tunnels without Ethernet headers; what goes to the other is carried by VXLAN.
ROUTED = ("nve1", "nve2")
ZONE = "example.org"
SIR = "2001:db8:5:2"
_LEAVE = {"answer": "unreachable", "seconds": 60}
#: In apps, addresses belong to the NVE; in mobile, tasks keep theirs: IPv4 by host routes, IPv6 by ILA.
APPS = VNSpec("apps", 100, {"leave": _LEAVE}, "l3", subnets=subnets(1, NVES), router="shop")
MOBILE = VNSpec(
    "mobile", 200, {}, "l3", router="shop", sir=f"{SIR}::/64",
    subnets=tuple(one for one in subnets(2, NVES) if ":" not in one[0]),
)
#: What moves, in the order of the chapters; all begin at nve1.
CAMERA, CHAT, WEB, MUTE = "camera", "chat", "web", "mute"
#: Who stays: in mobile and in apps, at nve2 and nve3.
PHONES, DESKS = ("phone2", "phone3"), ("desk2", "desk3")
_NUMBERS = {CAMERA: 1, CHAT: 2, WEB: 3, MUTE: 4}


def _mobile(name: str, n: int, host: int) -> VMSpec:
    return task(name, MOBILE, f"nve{n}", f"10.2.{n}.{host}", f"{SIR}::{n}:{host}", n << 8 | host)


def _apps(name: str, n: int, host: int, **more: Any) -> VMSpec:
    return task(name, APPS, f"nve{n}", f"10.1.{n}.{host}", f"2001:db8:1:{n}::{host}", n << 8 | host, **more)


def fqdn(name: str) -> str:
    """The name of a task in the name server."""
    return f"{name}.{ZONE}"


def guests() -> list[VMSpec]:
    """Those that are virtual machines or containers of the topology."""
    return [
        _mobile(CAMERA, 1, _NUMBERS[CAMERA]),
        _apps(MUTE, 1, _NUMBERS[MUTE], dns=fqdn(MUTE), leave={"answer": "drop", "seconds": 60}),
        *(_mobile(name, int(name[-1]), 100) for name in PHONES),
        *(_apps(name, int(name[-1]), 100) for name in DESKS),
    ]


def tasks() -> list[VMSpec]:
    """Those that an agent runs."""
    return [_mobile(CHAT, 1, _NUMBERS[CHAT]), _apps(WEB, 1, _NUMBERS[WEB], dns=fqdn(WEB))]


def interface(spec: VMSpec) -> dict[str, Any]:
    """A task's interface, as its agent's definition has it."""
    gateway = Gateway()
    return {
        "name": "eth0", "network": spec.vn, "mac": spec.mac, "addresses": [spec.ipv4, spec.ipv6], "mtu": spec.mtu,
        "routes": [{"to": "default", "via": gateway.ipv4, "onlink": True},
                   {"to": "default", "via": gateway.ipv6, "onlink": True}],
        **({"dns": spec.dns} if spec.dns else {}),
    }


def topology(underlay: str) -> OverlayTopo:
    """The stage itself."""
    return OverlayTopo(
        nves=len(NVES), vns=[APPS, MOBILE], vms=guests(), underlay=underlay, routed=list(ROUTED), ila=True,
    )
