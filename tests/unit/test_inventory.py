"""The inventory file: what is taken, what is refused, and in which line."""

from __future__ import annotations

import json
import re
import time
from dataclasses import replace
from pathlib import Path

import pytest

from ryu_vmm import inventory
from ryu_vmm.errors import Conflict, InvalidInput
from ryu_vmm.located import from_json
from ryu_vmm.model import Place

GOOD = """\
nves:
  - name: nve1
    dpid: 0000000000000010
    ipv4: 192.168.100.1
  - {name: nve2, dpid: 0x11, ipv4: 192.168.100.2, ipv6: "fd00:100::2"}
networks:
  - name: blue
    vni: 100
    policy: &pull
      distribution: pull
      mtu: 1400
  - name: red
    vni: 0x65
    policy: *pull
vms:
  - name: vm1
    interfaces:
      - name: eth0
        network: blue
        mac: 52:54:00:12:34:56
        ipv4: [10.0.0.1]
        ipv6:
          - 2001:db8::1
        nve: nve1
        port: tap-vm1
        attachments:
          - {nve: nve2, port: tap-vm1}
"""


def refused(text: str, **options: bool) -> InvalidInput:
    with pytest.raises(InvalidInput) as caught:
        inventory.parse(text, "lab.yaml", **options)
    return caught.value


def faults(error: InvalidInput) -> list[tuple[object, object]]:
    return [(wrong["line"], wrong["field"]) for wrong in error.details["errors"]]  # type: ignore[attr-defined]


def test_good_file_is_applied_whole(runtime, tmp_path: Path) -> None:
    path = tmp_path / "lab.yaml"
    path.write_text(GOOD)
    assert inventory.apply_file(runtime, path) == {"created": 5, "updated": 0, "unchanged": 0}
    state = runtime.state
    assert state.nves["nve1"].dpid == 0x10
    assert state.nves["nve2"].dpid == 0x11
    assert state.networks[100].policy.mtu == state.networks[0x65].policy.mtu == 1400
    interface = state.interfaces["vm1/eth0"]
    assert interface.mac.hex(":") == "52:54:00:12:34:56"
    assert interface.ipv6 == (bytes.fromhex("20010db8000000000000000000000001"),)
    assert [tuple(place) for place in interface.attachments] == [("nve2", "tap-vm1")]

    assert inventory.apply_file(runtime, path) == {"created": 0, "updated": 0, "unchanged": 5}
    path.write_text(GOOD.replace("mtu: 1400", "mtu: 1300"))
    assert inventory.apply_file(runtime, path) == {"created": 0, "updated": 2, "unchanged": 3}


def test_json_is_the_same(runtime, tmp_path: Path) -> None:
    whole = inventory.parse(GOOD).model_dump(mode="json")
    path = tmp_path / "lab.json"
    path.write_text(json.dumps(whole))
    assert inventory.load(path) == inventory.parse(GOOD)


@pytest.mark.parametrize("text", ["", "# nothing yet\n", "{}", "vms: []\n"])
def test_an_empty_file_is_an_empty_inventory(runtime, text: str) -> None:
    assert inventory.apply(runtime, inventory.parse(text)) == {"created": 0, "updated": 0, "unchanged": 0}


def test_every_fault_is_named_with_its_line() -> None:
    text = (
        GOOD.replace("vni: 100", "vni: 0")
        .replace("mac: 52:54", "mac: 53:54")
        .replace("port: tap-vm1\n", "prt: x\n")
    )
    error = refused(text)
    assert faults(error) == [
        (8, "networks[0].vni"),
        (20, "vms[0].interfaces[0].mac"),
        (18, "vms[0].interfaces[0].port"),
        (25, "vms[0].interfaces[0].prt"),
    ]
    assert error.message.splitlines()[1].startswith(
        "lab.yaml:20: vms[0].interfaces[0].mac: '53:54:00:12:34:56' is"
    )


def test_json_faults_have_lines_too() -> None:
    whole = inventory.parse(GOOD).model_dump(mode="json")
    whole["networks"][1]["vni"] = "101"
    whole["vms"][0]["interfaces"][0]["colour"] = [1, {"a": "]}"}]
    text = json.dumps(whole, indent=1)
    lines = text.splitlines()
    error = refused(text, yaml_syntax=False)
    assert [field for _, field in faults(error)] == ["networks[1].vni", "vms[0].interfaces[0].colour"]
    for (line, _), content in zip(faults(error), ('"vni": "101"', '"colour"'), strict=True):
        assert content in lines[line - 1]  # type: ignore[operator]


@pytest.mark.parametrize(
    ("change", "line", "field"),
    [
        (("dpid: 0x11", "dpid: 10"), 5, "nves[1].dpid"),
        (("name: nve2, dpid", "name: nve1, dpid"), 5, "nves[1].name"),
        (("vni: 0x65", "vni: 100"), 13, "networks[1].vni"),
        (("name: red", "name: blue"), 12, "networks[1].name"),
        (("nve: nve2, port: tap-vm1", "nve: nve1, port: other"), 18, "vms[0].interfaces[0]"),
    ],
)
def test_what_may_not_occur_twice(change: tuple[str, str], line: int, field: str) -> None:
    assert (line, field) in faults(refused(GOOD.replace(*change)))


def test_addresses_are_unique_per_network_only() -> None:
    second = """
  - name: vm2
    interfaces:
      - {name: eth0, network: NETWORK, mac: "52:54:00:12:34:56", ipv4: [10.0.0.1], nve: nve1, port: tap-vm2}
"""
    assert len(inventory.parse(GOOD + second.replace("NETWORK", "red")).vms) == 2
    error = refused(GOOD + second.replace("NETWORK", "blue"))
    assert [field for _, field in faults(error)] == [
        "vms[1].interfaces[0].mac",
        "vms[1].interfaces[0].ipv4[0]",
    ]


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ("vms: [\n", 2, "not YAML"),
        ("vms:\n\t- x\n", 2, "not YAML"),
        ("vms: []\nvms: []\n", 2, "twice"),
        ("? [a]\n: b\n", 1, "a key that is not text"),
        ("nves: !!python/object:os.system x\n", 1, "unknown YAML tag"),
        ("nves: !mine x\n", 1, "unknown YAML tag"),
        ("--- {}\n--- {}\n", 2, "not YAML"),
        ("nves: &a\n - *a\n", 1, "part of"),
        ("- nves\n", 1, "is not an object"),
        ("just text\n", 1, "is not an object"),
        ("nves: 5\n", 1, "list"),
        ("nves: [" + "[" * 5000, None, "not YAML"),
        ("a: \0", None, "not YAML"),
    ],
)
def test_what_is_no_inventory_at_all(text: str, line: int | None, words: str) -> None:
    error = refused(text)
    assert words in error.message
    if line is not None:
        assert error.message.startswith(f"lab.yaml:{line}: ")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{", "lab.yaml:1: not JSON"),
        ('{\n"vms": [],\n"vms": []}', "'vms' occurs twice"),
        ("NaN", "not JSON"),
        ("[" * 100_000, "nested too deeply"),
        ('{"networks": [{"name": "blue", "vni": 1e2}]}', "networks[0].vni: not a whole number"),
        ('{"networks": [{"name": "blue", "vni": true}]}', "networks[0].vni: not a whole number"),
        ("[]", "is not an object"),
    ],
)
def test_what_is_no_json(text: str, words: str) -> None:
    assert words in refused(text, yaml_syntax=False).message


def test_not_utf8(tmp_path: Path) -> None:
    path = tmp_path / "latin.yaml"
    path.write_bytes(b"vms: []\n# \xe9\n")
    with pytest.raises(InvalidInput, match=r"latin.yaml:2: not UTF-8"):
        inventory.load(path)


def test_unknown_references_are_told_and_all_else_is_taken(runtime, tmp_path: Path) -> None:
    path = tmp_path / "lab.yaml"
    path.write_text(
        GOOD.replace("network: blue", "network: green").replace("{nve: nve2, port", "{nve: nve9, port")
    )
    assert inventory.apply_file(runtime, path) == {"created": 4, "updated": 0, "unchanged": 0, "refused": 2}
    assert runtime.refused == [
        f"{path}:19: vms[0].interfaces[0].network: there is no network green",
        f"{path}:27: vms[0].interfaces[0].attachments[0].nve: there is no NVE nve9",
    ]
    assert (len(runtime.state.nves), len(runtime.state.vms)) == (2, 0)
    with pytest.raises(InvalidInput):  # what somebody submits is taken whole or not at all
        inventory.apply(runtime, inventory.load(path))


def test_a_conflict_at_start_is_told_with_its_line_and_keeps_nobody_away(runtime, tmp_path: Path) -> None:
    path = tmp_path / "lab.yaml"
    path.write_text(GOOD)
    inventory.apply_file(runtime, path)
    path.write_text(
        "networks:\n- {name: green, vni: 7}\n"
        "vms:\n- name: vm9\n  interfaces:\n"
        '  - {name: eth0, network: green, mac: "02:00:00:00:00:09", nve: nve1, port: tap-vm9}\n'
        '  - {name: eth1, network: blue, mac: "52:54:00:12:34:56", nve: nve1, port: tap-vm9b}\n'
        "- name: vm10\n  interfaces:\n"
        '  - {name: eth0, network: green, mac: "02:00:00:00:00:10", nve: nve1, port: tap-vm10}\n'
    )
    for created in (2, 0):  # again at the next start
        counts = {"created": created, "updated": 0, "unchanged": 2 - created, "refused": 1}
        assert inventory.apply_file(runtime, path) == counts
        (line,) = runtime.refused
        assert re.fullmatch(r".*lab.yaml:4: vms\[0\]: MAC 52:54:00:12:34:56 .* vm1/eth0.*", line)
    assert set(runtime.state.vms) == {"vm1", "vm10"}
    with pytest.raises(Conflict) as caught:
        inventory.apply(runtime, inventory.load(path))
    assert caught.value.details["item"] == "vms[0]"


CLASHES = """\
nves:
  - {name: nve1, dpid: "0x1", ipv4: 192.0.2.1}
  - {name: nve2, dpid: "0x1", ipv4: 192.0.2.2}
networks:
  - {name: blue, vni: 100}
  - {name: green, vni: 100}
  - {name: red, vni: 101}
  - {name: red, vni: 100}
vms:
  - {name: vm1, interfaces: [{name: eth0, network: blue, mac: "02:00:00:00:00:01", nve: nve1, port: tap1}]}
  - {name: vm1, interfaces: [{name: eth0, network: red, mac: "02:00:00:00:00:02", nve: nve1, port: tap2}]}
  - {name: vm3, interfaces: [{name: eth0, network: blue, mac: "02:00:00:00:00:01", nve: nve1, port: tap3}]}
  - {name: vm4, interfaces: [{name: eth0, network: green, mac: "02:00:00:00:00:04", nve: nve1, port: tap4}]}
  - {name: vm5, interfaces: [{name: eth0, network: red, mac: "02:00:00:00:00:05", nve: nve1, port: tap5}]}
"""


def test_entries_that_clash_with_each_other_are_told_and_keep_nobody_away(runtime, tmp_path: Path) -> None:
    """Of two that clash the first one is taken. Nobody is taken to the network that has the VNI of one refused."""
    path = tmp_path / "lab.yaml"
    path.write_text(CLASHES)
    for created in (5, 0):  # again at the next start
        counts = {"created": created, "updated": 0, "unchanged": 5 - created, "refused": 6}
        assert inventory.apply_file(runtime, path) == counts
        assert [line.removeprefix(f"{path}:") for line in runtime.refused] == [
            "8: networks[3].name: red is already used by networks[2].name",
            "11: vms[1].name: vm1 is already used by vms[0].name",
            "3: nves[1]: datapath id 0000000000000001 belongs to NVE nve1",
            "6: networks[1]: VNI 100 belongs to network blue",
            "12: vms[2]: MAC 02:00:00:00:00:01 in network blue belongs to vm1/eth0; what interfaces hold in turn is "
            "registered with each as shared_macs",
            "13: vms[3]: there is no network green: what the file says of it, with VNI 100, was not taken",
        ]
    assert {i.id: i.vni for i in runtime.state.interfaces.values()} == {"vm1/eth0": 100, "vm5/eth0": 101}
    with pytest.raises(InvalidInput):  # what somebody submits is taken whole or not at all
        inventory.load(path)


def test_a_network_that_is_refused_takes_nobody_to_another_one(runtime, tmp_path: Path) -> None:
    """The file comes to give it the VNI of another network; its guests stay where they are."""
    path = tmp_path / "lab.yaml"
    path.write_text(GOOD)
    inventory.apply_file(runtime, path)
    text = GOOD.replace("vni: 100", "vni: 102").replace("vni: 0x65", "vni: 100").replace("vni: 102", "vni: 0x65")
    path.write_text(text)
    assert inventory.apply_file(runtime, path) == {"created": 0, "updated": 0, "unchanged": 2, "refused": 3}
    assert "network blue has VNI 100" in runtime.refused[-1]
    assert runtime.state.interfaces["vm1/eth0"].vni == 100


def test_a_moved_vm_stays_where_it_is(runtime) -> None:
    inventory.apply(runtime, inventory.parse(GOOD))
    moved = replace(runtime.state.interfaces["vm1/eth0"], location=Place("nve2", "tap-vm1"))
    runtime.state.put("interfaces", "vm1/eth0", moved)
    same = {"created": 0, "updated": 0, "unchanged": 5}
    assert inventory.apply(runtime, inventory.parse(GOOD)) == same
    assert runtime.state.interfaces["vm1/eth0"].location == Place("nve2", "tap-vm1")


def test_a_file_from_before_a_move_keeps_no_nva_from_starting(runtime, tmp_path) -> None:
    """The VM has moved, and was registered where it is since; the file still says where it was."""
    path = tmp_path / "lab.yaml"
    path.write_text(GOOD)
    inventory.apply_file(runtime, path)
    there = Place("nve2", "tap-vm1")
    moved = replace(runtime.state.interfaces["vm1/eth0"], location=there)
    runtime.state.put("interfaces", "vm1/eth0", moved)
    inventory.apply(runtime, inventory.parse(GOOD.replace("nve: nve1\n", "nve: nve2\n")))
    assert inventory.apply_file(runtime, path) == {"created": 0, "updated": 0, "unchanged": 5}
    assert runtime.state.interfaces["vm1/eth0"] == moved
    with pytest.raises(Conflict, match="nobody knows"):  # who submits it now means it
        inventory.apply(runtime, inventory.parse(GOOD))


def test_another_port_in_a_file_is_waited_for(runtime) -> None:
    inventory.apply(runtime, inventory.parse(GOOD))
    other_port = GOOD.replace("port: tap-vm1\n", "port: tap-new\n")
    assert inventory.apply(runtime, inventory.parse(other_port))["updated"] == 1
    found = runtime.state.interfaces["vm1/eth0"]
    assert (found.location.port, found.pending) == ("tap-vm1", Place(found.location.nve, "tap-new"))


@pytest.mark.parametrize("syntax", ["[", "- ", "{a: ", "? "])
def test_a_document_nested_too_deeply_is_refused(syntax: str) -> None:
    """libyaml would recurse until the stack is full, and end the process."""
    with pytest.raises(InvalidInput, match="nested too deeply"):
        inventory.parse(syntax * 50_000, "deep")
    with pytest.raises(InvalidInput):
        inventory.parse("[" * 50_000, "deep", yaml_syntax=False)


def test_aliases_do_not_make_a_document_large() -> None:
    lines = ["vms:", "- &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"- &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 12)]
    with pytest.raises(InvalidInput, match="aliases make it too large"):
        inventory.parse("\n".join(lines), "bomb")


def test_many_names_are_looked_through_once() -> None:
    names = ", ".join(f'"n{n}": 1' for n in range(60_000))
    began = time.process_time()
    with pytest.raises(InvalidInput, match="'n59999' occurs twice"):
        inventory.parse(f'{{{names}, "n59999": 2}}', "many", yaml_syntax=False)
    assert time.process_time() - began < 5


def test_the_lines_of_many_faults_are_found_in_one_look() -> None:
    count = 20_000
    vms = [{"x": [1, {"y": "]}"}], "name": str(n)} for n in range(count)]
    text = "\n" + json.dumps({"nves": [], "vms": vms}, indent=1)
    _, line_of = from_json(text, "many")
    began = time.process_time()
    found = [line_of(["vms", n, "name"]) for n in range(count)]
    assert time.process_time() - began < 5
    lines = text.splitlines()
    assert [lines[(line or 0) - 1].strip() for line in found] == [f'"name": "{n}"' for n in range(count)]
    assert line_of(["vms", 0, "z"]) == line_of(["vms", 0])
    assert line_of(["vms", count]) == line_of(["vms"])
    assert line_of(["nves", 0]) == line_of(["nves"]) == 3
