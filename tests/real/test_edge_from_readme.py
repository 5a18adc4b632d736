"""An edge made by what README says, registered, and attacked by a tenant who knows Open vSwitch's in-band control."""

from __future__ import annotations

import json
import os
import re
import struct
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from proof import raw

from ryu_vmm.edge import checking, reading
from topologies import VM, OverlayNet, netns
from topologies.controller import ryu_manager
from topologies.nve import NVE
from topologies.rundir import wait_until
from topologies.underlay import BRIDGE

README = (Path(__file__).parents[2] / "README.md").read_text()
NVA, EDGE = "192.0.2.10", "192.0.2.1"
MARK = b"across tenants"
USERSPACE = ["--datapath-type", "netdev", "--uplink", "und0", "--ipv4", f"{EDGE}/24"]  # as docs/switches.md has it


def said(command: str) -> list[str]:
    """The words of the command that README shows in a block of its own, by how it begins."""
    found = re.findall(rf"^    ({re.escape(command)} .*?)(?: +#.*)?$", README, re.MULTILINE)
    assert found, f"README no longer shows {command}"
    return [str(Path(sys.executable).parent / "vmm"), *found[0].split()[1:]]


class Bench:
    """One edge, two tenants' guests behind it, and an NVA beyond the underlay."""

    def __init__(self, net: OverlayNet) -> None:
        self.net, self.nve = net, net.nves[0]
        self.blue, self.red = net.vms

    def on(self, namespace: str, words: Sequence[str], code: int = 0) -> str:
        """Run a command of the host's, or of the NVA's machine, as one who has logged in there."""
        done = subprocess.run(
            netns.inside(namespace, words), capture_output=True, text=True, timeout=60, check=False,
            env={**os.environ, "OVS_RUNDIR": self.nve.folder},
        )  # fmt: skip
        assert done.returncode == code, f"{words}: {done.returncode}\n{done.stdout}{done.stderr}"
        return done.stdout

    def vmm(self, *words: str) -> Any:
        """`vmm` where the NVA is; its document."""
        return json.loads(self.on(self.net.underlay.namespace, [said("vmm nve add")[0], *words, "--json"]))

    def check(self, code: int = 0) -> list[dict[str, Any]]:
        """`vmm nve check` on the host."""
        words = [*said("vmm nve setup")[:1], "nve", "check", "--json"]
        return list(json.loads(self.on(self.nve.namespace, words, code))["findings"])

    def received(self, vm: VM) -> int:
        """Frames that the bridge has had from a guest."""
        text = self.nve.ofctl("dump-ports", vm.spec.port)
        found = re.search(r"rx pkts=(\d+)", text)
        assert found, text
        return int(found[1])


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    net = OverlayNet(nves=1, vms=2, vns=2, controller=None)
    made = Bench(net)

    def start(nve: NVE, _controllers: Any) -> None:
        nve._start_daemons()
        netns.ip_batch(net.underlay.namespace, f"addr add {NVA}/24 dev {BRIDGE}", f"link set {BRIDGE} up")
        # What the NVA's machine sends comes by a veth pair: its checksums have to be complete as well
        netns.run(netns.inside(net.underlay.namespace, ["ethtool", "-K", BRIDGE, "tx", "off"]))
        words = [*said("vmm nve setup"), *USERSPACE]
        printed = made.on(nve.namespace, [word for word in words if word != "--run"])
        made.on(nve.namespace, ["sh", "-ec", printed])  # what is printed is for any shell
        made.on(nve.namespace, words)  # and running it again changes nothing
        nve.running = True
        for port in nve.ports_wanted.items():
            nve.vsctl(*nve._add_port_words(*port))
        nve._widen()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(NVE, "start", start)
        net.start()
    try:
        conf = tmp_path_factory.mktemp("nva") / "vmm.conf"
        conf.write_text(f"[DEFAULT]\nofp_listen_host = {NVA}\n[vmm]\nstore = {conf.parent / 'vmm.sqlite'}\n")
        net.lab.run.spawn([ryu_manager(), "--config-file", str(conf), "ryu_vmm"], namespace=net.underlay.namespace,
                          log="nva.log", cwd=str(conf.parent))  # fmt: skip
        wait_until(lambda: made_ready(made), 60, "the NVA", 0.1)
        made.vmm(*said("vmm nve add nve1")[1:])
        for vm, vn in zip(net.vms, net.topo.vn_specs, strict=True):
            made.vmm("network", "add", vn.name, "--vni", str(vn.vni))
            made.vmm("vm", "add", vm.name, "--network", vn.name, "--mac", vm.spec.mac, "--ip", str(vm.spec.ip),
                     "--nve", "nve1", "--port", vm.spec.port)  # fmt: skip
        wait_until(lambda: made.vmm("nve", "show", "nve1")["in_sync"], 30, "the edge in sync", 0.1)
        yield made
    finally:
        net.stop()


def made_ready(bench: Bench) -> bool:
    words = netns.inside(bench.net.underlay.namespace, [said("vmm nve add")[0], "status"])
    return subprocess.run(words, capture_output=True, check=False).returncode == 0


def attacks(bench: Bench) -> dict[str, bytes]:
    """What in-band control lets pass: TCP and ARP of the NVA's address, ARP with the host's own MAC (design.rst)."""
    me, you = raw.mac(bench.blue.spec.mac), raw.mac(bench.red.spec.mac)
    nva, edge, mine = raw.ip(NVA), raw.ip(EDGE), raw.ip(str(bench.blue.spec.ip))
    own = raw.mac(bench.nve.vsctl("get", "interface", "br-int", "mac_in_use").strip().strip('"'))

    def tcp(src: bytes, dst: bytes, ports: tuple[int, int]) -> bytes:
        frame = raw.udp4(you, me, src, dst, bytes(12) + MARK)
        head = frame[14:23] + b"\6" + frame[24:34]
        head = head[:10] + bytes(2) + head[12:]
        head = head[:10] + raw.checksum(head).to_bytes(2, "big") + head[12:]
        body = struct.pack("!HHIIBBHHH", *ports, 0, 0, 0x50, 2, 0xFFFF, 0, 0) + MARK
        return frame[:14] + head + body

    return {
        "TCP in the NVA's name": tcp(nva, raw.ip(str(bench.red.spec.ip)), (6653, 80)),
        "TCP to the NVA's address, at the other tenant's MAC": tcp(mine, nva, (80, 6653)),
        "ARP request in the NVA's name": raw.arp(1, me, nva, bytes(6), raw.ip(str(bench.red.spec.ip)), dst=you),
        "ARP request in the NVA's name, to all": raw.arp(1, me, nva, bytes(6), mine),
        "ARP reply to the NVA": raw.arp(2, me, edge, you, nva, dst=you),
        "ARP request with the host's MAC": raw.arp(1, own, edge, bytes(6), nva, dst=you),
        "ARP reply to the host's MAC": raw.arp(2, me, nva, own, edge, dst=own),
    }


def arrived(bench: Bench) -> set[str]:
    """The attacks that reach the other tenant's guest."""
    tried = attacks(bench)
    before = bench.received(bench.blue)
    with raw.Card(bench.blue) as blue, raw.Card(bench.red) as red:
        for frame in tried.values():
            blue.send(frame)
        wait_until(lambda: bench.received(bench.blue) >= before + len(tried), 10, "the frames at the bridge")
        seen = {frame.ljust(60, b"\0") for frame in red.during(0.5)}
    return {name for name, frame in tried.items() if frame.ljust(60, b"\0") in seen}


def test_nothing_passes_between_tenants_and_with_in_band_control_it_would(bench: Bench) -> None:
    assert bench.check() == []
    assert arrived(bench) == set()
    # the control: without what the set-up says, the same frames arrive, and the check says so with what mends it
    bench.nve.vsctl("remove", "bridge", "br-int", "other-config", "disable-in-band",
                    "--", "set", "controller", "br-int", "connection_mode=in-band")  # fmt: skip
    wait_until(lambda: any("hidden" in one["what"] for one in bench.check(1)), 10, "in-band control")
    assert {"TCP in the NVA's name", "TCP to the NVA's address, at the other tenant's MAC"} <= arrived(bench)
    for finding in bench.check(1):
        for command in finding["mend"]:
            bench.on(bench.nve.namespace, ["sh", "-c", command])
    assert bench.check() == []
    assert arrived(bench) == set()


def test_what_is_wrong_is_found_and_its_command_mends_it(bench: Bench) -> None:
    """Every slip by itself, and all at once: after the commands nothing is wrong, and the edge is connected."""
    nve, tap = bench.nve, bench.blue.spec.port
    slips = {
        "fail mode": ["ovs-vsctl", "set", "bridge", "br-int", "fail_mode=standalone"],
        "OpenFlow 1.3": ["ovs-vsctl", "set", "bridge", "br-int", "protocols=OpenFlow10,OpenFlow15"],
        "follows from a port's MAC": ["ovs-vsctl", "remove", "bridge", "br-int", "other-config", "datapath-id"],
        "key=flow": ["ovs-vsctl", "remove", "interface", "vxlan", "options", "key"],
        "remote_ip=flow": ["ovs-vsctl", "set", "interface", "vxlan", "options:remote_ip=192.0.2.99"],
        "local_ip=flow": ["ovs-vsctl", "remove", "interface", "vxlan", "options", "local_ip"],
        "csum=true": ["ovs-vsctl", "remove", "interface", "vxlan", "options", "csum"],
        "UDP port": ["ovs-vsctl", "set", "interface", "vxlan", "options:dst_port=8472"],
        "no tunnel port": ["ovs-vsctl", "del-port", "br-int", "vxlan"],
        "max_backoff is 8000": ["ovs-vsctl", "set", "controller", "br-int", "max_backoff=8000"],
        "inactivity_probe is 0": ["ovs-vsctl", "set", "controller", "br-int", "inactivity_probe=0"],
        "as the row was made": ["sh", "-c", f"ovs-vsctl set-controller br-int tcp:{NVA}:6653 -- set controller br-int "
                                            "connection_mode=out-of-band max_backoff=1000 inactivity_probe=5000"],
        "an MTU of 1400": ["ip", "link", "set", "und0", "mtu", "1400"],
        "holds 1000 frames": ["ip", "link", "set", tap, "txqueuelen", "1000"],
        "leaves checksums undone": ["ethtool", "-K", "und0", "tx", "on"],
        "(NORMAL)": ["ovs-ofctl", "-OOpenFlow13", "add-flow", "br-int", "table=0,priority=7,ip,actions=NORMAL"],
        "is not the NVA's": ["ovs-ofctl", "-OOpenFlow13", "add-flow", "br-int", "table=40,cookie=5,arp,actions=drop"],
    }  # fmt: skip

    def findings() -> list[checking.Finding]:
        return checking.findings(reading.read(nve.host, "br-int"), checking.Wanted())

    for what, slip in slips.items():
        bench.on(nve.namespace, slip)
        found = [one for one in findings() if what in one.what]
        assert found, (what, findings())
        for step in found[0].mend:
            nve.host.do(step)
        left = {one.what for one in findings()}
        assert left <= {f"tcp:{NVA}:6653: not connected"}, what
    wait_until(lambda: findings() == [], 20, "the NVA again", 0.1)
