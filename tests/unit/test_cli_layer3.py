"""Layer 3 on the command line: what is registered, what is shown, and what is no option."""

from __future__ import annotations

import pytest
from cli_lab import Nva, lab, nva

__all__ = ["lab", "nva"]

NETWORK = (
    "network add tasks --vni 300 --kind l3 --gateway 169.254.1.1 --gateway fe80::1 --subnet 10.1.1.0/24=nve1 "
    "--subnet 10.1.2.0/24=nve2 --sir 2001:db8:5::/64 --router r1 --leave forward:30"
)


def test_a_network_and_its_tasks(lab: Nva) -> None:
    lab.run(NETWORK)
    text = lab.run("network show tasks").stdout
    for shown in ("l3", "169.254.1.1", "02:76:6d:00:00:01", "2001:db8:5::/64", "forward, for 30 s", "10.1.2.0/24"):
        assert shown in text
    lab.run(
        "nve add nve1 --dpid 1 --ipv4 192.168.100.1 --ipv6 fd00::1 --routed-port gre --locator fd00:1:0:1::/64 "
        "--ila-port ila --next-hop fd00::fe --replace"
    )
    text = lab.run("nve show nve1").stdout
    assert "fd00:1:0:1::/64 by port" in text
    assert "fd00::fe" in text
    lab.run(
        "vm add task-1 --network tasks --mac 02:00:00:00:00:77 --ip 10.1.1.7 --nve nve1 --port vif-7 --leave drop"
    )
    assert lab.json("vm show task-1")["leave"] == {"answer": "drop", "seconds": 60}
    text = lab.run("move start task-1 --to nve2 --address change").stdout
    move = lab.json("move list")["items"][0]
    assert move["addresses"] == [{"interface": "task-1/eth0", "old": "10.1.1.7", "new": "10.1.2.7"}]
    text = lab.run(f"move show {move['id']}").stdout
    assert "10.1.1.7 becomes 10.1.2.7" in text
    assert "connections: drop" in text


@pytest.mark.parametrize(
    ("words", "why"),
    [
        ("--gateway 10.0.0.1 --gateway 10.0.0.2", "two IPv4 addresses"),
        ("--gateway 10.0.0.1 --subnet 10.0.0.0/24", "PREFIX=NVE"),
        ("--gateway 10.0.0.1 --leave later", "is not one of"),
        ("--gateway 10.0.0.1 --leave drop:soon", "is not one of"),
        ("--kind l5", "is not one of"),
    ],
)
def test_what_is_no_option(lab: Nva, words: str, why: str) -> None:
    assert why in lab.run(f"network add tasks --vni 300 {words}", 2).stderr
