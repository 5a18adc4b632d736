"""The test bed itself: what it builds, that it works, and that nothing of it is left behind."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator

import pytest
from handmade import Hand

from topologies import OverlayNet, TopologyError, VMSpec
from topologies.cleanup import read
from topologies.netns import NAMED, inside, run
from topologies.rundir import BASE, command_of


def ours(tag: str) -> list[str]:
    """The namespaces of one run."""
    return sorted(name for name in os.listdir(NAMED) if name.startswith(f"{tag}-"))


def interfaces(namespace: str | None = None) -> dict[str, dict[str, object]]:
    argv = ["ip", "-details", "-json", "addr"]
    text = run(inside(namespace, argv) if namespace else argv)
    return {str(link["ifname"]): link for link in json.loads(text)}


@pytest.fixture(params=["ipv4", "ipv6"])
def net(request: pytest.FixtureRequest) -> Iterator[OverlayNet]:
    with OverlayNet(nves=3, vms=3, underlay=request.param, controller=None) as built:
        yield built


def test_start_and_stop_leave_nothing_behind() -> None:
    net = OverlayNet(nves=2, vms=2, controller=None)
    tag, path = net.lab.run.tag, net.run_dir
    net.start()
    assert net.lab.relay.ask("counts") == {}  # both helpers run
    assert ours(tag) == sorted(f"{tag}-{node}" for node in ("nve1", "nve2", "und", "vm1", "vm2"))
    assert not {"und0", "br-int", "br-ext", "br0", "tap-vm1", "tap-vm2", "nve1", "nve2"} & set(interfaces())
    owned = read(path)
    assert owned.owner == os.getpid()
    assert len(owned.processes) == 6  # two daemons for each NVE, vnic, relay
    shells = [node.pid for node in [*net.switches, *net.hosts]]
    net.stop()
    net.stop()  # twice does no harm
    assert ours(tag) == []
    assert not os.path.exists(path)
    for pid, command in owned.processes:
        assert command_of(pid) != command
    for pid in shells:
        assert "mininet:" not in command_of(pid)


def test_vms_reach_each_other_over_either_underlay(net: OverlayNet) -> None:
    Hand(net)
    assert net.pingAll() == 0.0


def test_two_topologies_run_side_by_side() -> None:
    with OverlayNet(nves=2, vms=2, controller=None) as one:
        with OverlayNet(nves=2, vms=2, controller=None) as other:
            assert one.run_dir != other.run_dir
            assert not set(ours(one.lab.run.tag)) & set(ours(other.lab.run.tag))
            Hand(one)
            assert one.pingAll() == 0.0
            assert other.pingAll() == 100.0  # nobody programmed that one, and the first does not leak into it
            Hand(other)
            assert other.pingAll() == 0.0
            one_left, other_left = ours(one.lab.run.tag), ours(other.lab.run.tag)
        assert ours(other.lab.run.tag) == []
        assert ours(one.lab.run.tag) == one_left
        assert other_left
        assert one.pingAll() == 0.0
        assert os.path.isdir(one.run_dir)


def test_the_same_addresses_in_two_networks() -> None:
    with OverlayNet(nves=2, vms=4, vns=2, overlap=True, controller=None) as net:
        a, b = net.vm("vm1"), net.vm("vm2")
        assert (a.spec.mac, a.spec.ip, a.spec.ip6) == (b.spec.mac, b.spec.ip, b.spec.ip6)
        assert {vm.spec.vn for vm in (a, b)} == {"vn1", "vn2"}
        Hand(net)
        assert net.pingAll() == 0.0


def test_an_nve_is_a_hypervisor_of_its_own(net: OverlayNet) -> None:
    nve = net.nve("nve1")
    links = interfaces(nve.namespace)
    assert links["und0"]["mtu"] == links["br-ext"]["mtu"] == 1600
    assert links["tap-vm1"]["mtu"] == 1450
    assert links["tap-vm1"]["txqlen"] == 10_000
    assert links["tap-vm1"]["addr_info"] == links["und0"]["addr_info"] == links["br-int"]["addr_info"] == []
    assert nve.vsctl("get", "Open_vSwitch", ".", "other_config:n-revalidator-threads").strip().strip('"') == "1"
    assert nve.vsctl("get-fail-mode", "br-int").strip() == "secure"
    assert f"dpid:{nve.dpid}" in nve.ofctl("show")
    assert nve.ofport("vxlan") == 1
    assert nve.flows() == []
    guest = interfaces(net.vm("vm1").namespace)["eth0"]
    assert guest["address"] == net.vm("vm1").spec.mac
    assert guest["mtu"] == 1450


def test_a_full_frame_fits_through_the_tunnel(net: OverlayNet) -> None:
    Hand(net)
    one, other = net.vm("vm1"), net.vm("vm2")
    for address, payload in ((other.spec.ip, 1450 - 28), (other.spec.ip6, 1450 - 48)):
        out, _, code = one.pexec(["ping", "-c", "1", "-W", "2", "-M", "do", "-s", str(payload), address])
        assert code == 0, out


def test_packet_sockets_are_wide(net: OverlayNet) -> None:
    nve = net.nve("nve1")
    if nve.datapath != "netdev":
        pytest.skip("the kernel datapath has no packet sockets")
    text = run(inside(nve.namespace, ["ss", "-0", "-m", "-n", "-a"]))
    lines = [line for line in text.splitlines() if ":tap-vm1" in line or ":und0" in line]
    assert len(lines) == 2
    assert all("rb16777216" in line for line in lines), text


def test_what_makes_no_sense_is_refused_before_anything_is_built() -> None:
    before = set(os.listdir(BASE))
    bad = [
        {"underlay": "ipx"},
        {"nves": 0},
        {"vms": [VMSpec("vm1", "vn1", "nve9", "02:00:00:00:00:01")]},
        {"vms": [VMSpec("vm1", "vn9", "nve1", "02:00:00:00:00:01")]},
        {"vms": [VMSpec("a", "vn1", "nve1", "02:00:00:00:00:01"), VMSpec("a", "vn1", "nve2", "02:00:00:00:00:02")]},
    ]
    for parameters in bad:
        with pytest.raises(TopologyError):
            OverlayNet(controller=None, **parameters)
    assert {name for name in set(os.listdir(BASE)) - before if name.startswith(f"ryu_vmm-{os.getpid()}")} == set()


def test_a_failing_start_takes_everything_down(monkeypatch: pytest.MonkeyPatch) -> None:
    net = OverlayNet(nves=2, vms=2, controller=None)
    tag = net.lab.run.tag
    real = net.nve("nve2").vsctl

    def broken(*words: str, timeout: int = 20) -> str:
        if "add-port" in words:
            raise TopologyError("no port for you")
        return real(*words, timeout=timeout)

    monkeypatch.setattr(net.nve("nve2"), "vsctl", broken)
    with pytest.raises(TopologyError, match="no port for you"):
        net.start()
    assert ours(tag) == []
    assert not os.path.exists(net.run_dir)


def test_processes_in_a_vm_run_in_its_namespace(net: OverlayNet) -> None:
    vm = net.vm("vm1")
    child = vm.popen(["readlink", "/proc/self/ns/net"], stdout=subprocess.PIPE, text=True)
    out, _ = child.communicate(timeout=10)
    with open(f"{NAMED}/{vm.namespace}", "rb") as handle:
        assert out.strip() == f"net:[{os.fstat(handle.fileno()).st_ino}]"
    assert vm.cmd("hostname -I").split()[0] == vm.spec.ip
