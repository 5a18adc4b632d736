"""What earlier topologies have left at an NVA that runs on: it makes room for the next one, and nothing else does.

A topology's edges have names and datapath ids that follow from their numbers, so those of the last one are the next
one's. They are replaced if that is certain: the datapath id is a topology's, and no other switch is connected by it.
"""

from __future__ import annotations

import contextlib
import re
import time
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from topologies.errors import ApiError

if TYPE_CHECKING:
    from topologies.net import OverlayNet
    from topologies.nve import NVE
    from topologies.rest import Rest

__all__ = ["moved_away", "remove"]

#: Longer than the NVA takes (takeover_within) to turn away a second switch with the datapath id of one that answers.
_STEADY = 1.5
_OTHERWISE = "or have another NVA for this topology: --controller nva,port=...,rest_port=..., or rest=none"


def remove(rest: Rest, net: OverlayNet) -> None:
    """Remove VMs and networks of earlier topologies that stand in this one's way, and let its NVEs be replaced.

    Raises ApiError, before anything is removed, if an NVE of that name is somebody else's; the text says what to do.
    """
    for nve in net.nves:
        _check(rest, nve)
    names = {nve.name for nve in net.nves}
    gone = [nve["name"] for nve in _items(rest, "/nves") if nve["name"] not in names and _is_left(nve)]
    names.update(gone)
    wanted = {vm.name for vm in net.vms}
    for vm in _items(rest, "/vms"):
        here = all(one["nve"] in names for one in vm["interfaces"])
        if here and (vm["name"] in wanted or not any(one["bound"] for one in vm["interfaces"])):
            rest.call("DELETE", f"/vms/{quote(vm['name'])}")
    paths = [f"/nves/{quote(name)}" for name in gone] + [f"/networks/{quote(vn.name)}" for vn in net.topo.vn_specs]
    for path in paths:
        with contextlib.suppress(ApiError):  # not there; or others' VMs are in it, as registering it will say
            rest.call("DELETE", path)


def moved_away(document: dict[str, Any], nve: str, port: str) -> bool:
    """Whether a VM that was known to the NVA is not where a topology has just made it, nor anywhere else."""
    return document["move"] is None and any(
        (one["nve"], one["port"]) != (nve, port) and not one["bound"] for one in document["interfaces"]
    )


def _is_left(known: dict[str, Any]) -> bool:
    """Whether an NVE was a topology's: not connected, and numbered as topologies number theirs."""
    number = re.fullmatch(r"nve(\d+)", known["name"])
    return number is not None and int(number[1]) == int(known["dpid"], 16) and not known["connected"]


def _check(rest: Rest, nve: NVE) -> None:
    try:
        known = rest.call("GET", f"/nves/{quote(nve.name)}")
    except ApiError as exc:
        if exc.status != 404:
            raise
        return
    if int(known["dpid"], 16) != int(nve.dpid, 16):
        raise ApiError(
            f"{nve.name} is registered with datapath id {known['dpid']}, which is no topology's: remove it "
            f"(vmm nve remove {nve.name}), {_OTHERWISE}", 409,
        )  # fmt: skip
    if known["connected"] and not _is_ours(nve):
        raise ApiError(
            f"another switch is connected as {nve.name} ({known['dpid']}), of another topology perhaps: stop that one, "
            f"{_OTHERWISE}", 409,
        )  # fmt: skip


def _is_ours(nve: NVE) -> bool:
    """Whether it is this topology's switch that is connected: one that is turned away connects again and again."""
    before = nve.lab.relay.ask("counts").get(nve.name)
    if before is None or not nve.connected():
        return False
    time.sleep(_STEADY)
    after = nve.lab.relay.ask("counts").get(nve.name)
    return bool(after is not None and after["accepted"] == before["accepted"] and nve.connected())


def _items(rest: Rest, path: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    after = ""
    while True:
        page = rest.call("GET", f"{path}?limit=1000{after}")
        found += page["items"]
        if page["next"] is None:
            return found
        after = f"&after={quote(page['next'])}"
