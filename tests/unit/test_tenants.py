"""Whose networks, VMs and moves are: as said, or as their networks', through changes of hands and restarts."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path
from typing import Any

import pytest
from live import LiveRuntime
from rest_lab import NVES, vm

from ryu_vmm import events as ev
from ryu_vmm import inventory
from ryu_vmm.errors import Conflict
from ryu_vmm.store import SqliteStore


def network(name: str, vni: int, tenant: str | None = None) -> dict[str, Any]:
    return {"name": name, "vni": vni, "tenant": tenant}


def apply(runtime: LiveRuntime, **what: Any) -> dict[str, int]:
    return inventory.apply(runtime, inventory.parse(json.dumps(what), yaml_syntax=False))


@pytest.fixture
def town(runtime: LiveRuntime) -> LiveRuntime:
    """Networks of acme, of beta and of the operator."""
    apply(runtime, nves=NVES, networks=[network("acme", 1, "acme"), network("beta", 2, "beta"), network("shared", 3)])
    for nve in ("nve1", "nve2", "nve3"):
        runtime.connect(nve, "tap-vm1")
    return runtime


def owners(runtime: LiveRuntime) -> dict[str, str | None]:
    for tenant in ("acme", "beta"):  # the index says the same
        assert set(runtime.state.vms_of(tenant)) == {v.name for v in runtime.state.vms.values() if v.tenant == tenant}
    return {v.name: v.tenant for v in runtime.state.vms.values()}


def test_a_vm_belongs_to_the_tenant_of_its_networks(town: LiveRuntime) -> None:
    apply(town, vms=[vm(1, network="acme"), vm(2, network="beta"), vm(3, network="shared")])
    assert owners(town) == {"vm1": "acme", "vm2": "beta", "vm3": None}
    both = vm(4, network="acme")
    both["interfaces"].append({**vm(5, network="beta")["interfaces"][0], "name": "eth1"})
    apply(town, vms=[both])
    assert owners(town)["vm4"] is None, "a VM between two tenants is the operator's"
    town.handle(ev.VmWithdrawn("vm1"))
    assert set(town.state.vms_of("acme")) == set()


def test_a_vm_belongs_to_whom_it_is_said_to(town: LiveRuntime) -> None:
    apply(town, vms=[{**vm(1, network="shared"), "tenant": "acme"}])
    assert owners(town) == {"vm1": "acme"}
    with pytest.raises(Conflict, match="network beta belongs to tenant beta"):
        apply(town, vms=[{**vm(2, network="beta"), "tenant": "acme"}])
    with pytest.raises(Conflict, match="network beta belongs to tenant beta"):
        apply(town, vms=[{**vm(1, network="beta"), "tenant": "acme"}])
    assert owners(town) == {"vm1": "acme"}
    assert apply(town, vms=[{**vm(1, network="shared"), "tenant": "acme"}])["unchanged"] == 1
    assert apply(town, vms=[{**vm(1, network="shared"), "tenant": "beta"}])["updated"] == 1
    assert owners(town) == {"vm1": "beta"}


def test_vms_change_hands_with_their_network(town: LiveRuntime) -> None:
    apply(town, vms=[vm(1, network="shared"), vm(2, network="shared")])
    apply(town, networks=[network("shared", 3, "acme")])
    assert owners(town) == {"vm1": "acme", "vm2": "acme"}
    apply(town, networks=[network("shared", 3, "beta")])
    assert owners(town) == {"vm1": "beta", "vm2": "beta"}
    apply(town, networks=[network("shared", 3)])
    assert owners(town) == {"vm1": None, "vm2": None}
    apply(town, vms=[{**vm(2, network="shared"), "tenant": "beta"}])
    with pytest.raises(Conflict, match="VM vm2 of tenant beta is in network shared"):
        apply(town, networks=[network("shared", 3, "acme")])
    assert owners(town) == {"vm1": None, "vm2": "beta"}


def test_a_move_and_its_events_are_the_tenants(town: LiveRuntime) -> None:
    apply(town, vms=[vm(1, network="acme"), vm(3, "nve3", network="shared")])
    move, _ = town.handle(ev.MoveRequested("vm1", "nve2"))
    other, _ = town.handle(ev.MoveRequested("vm3", "nve1"))
    assert (move.tenant, other.tenant) == ("acme", None)
    told = [entry[3] for entry in town.log.since(0) if entry[3].get("move") == move.id]
    assert told
    assert {fields["tenant"] for fields in told} == {"acme"}
    assert not any("tenant" in entry[3] for entry in town.log.since(0) if entry[3].get("move") == other.id)
    town.handle(ev.VmWithdrawn("vm1"))
    apply(town, vms=[vm(1, network="beta")])
    assert town.state.moves[move.id].tenant == "acme", "the name is another's now, the past is not"


def test_owners_survive_a_restart_and_old_stores_load(tmp_path: Path) -> None:
    path = tmp_path / "vmm.sqlite"
    first = LiveRuntime(SqliteStore(path))
    apply(first, nves=NVES, networks=[network("acme", 1, "acme")], vms=[vm(1, network="acme")])
    first.stop()
    second = LiveRuntime(SqliteStore(path))
    assert owners(second) == {"vm1": "acme"}
    assert second.state.networks[1].tenant == "acme"
    second.stop()
    with sqlite3.connect(path) as db:  # as a version without tenants wrote it
        for kind, key, doc in db.execute("SELECT kind, key, doc FROM record").fetchall():
            record = json.loads(doc)
            record[0].pop("tenant", None)
            db.execute("UPDATE record SET doc = ? WHERE kind = ? AND key = ?", (json.dumps(record), kind, key))
    db.close()
    third = LiveRuntime(SqliteStore(path))
    assert owners(third) == {"vm1": None}
    assert third.state.networks[1].tenant is None
    third.stop()
