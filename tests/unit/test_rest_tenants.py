"""What tenants and hypervisors see and do: theirs, and of everybody else's not even the names."""

from __future__ import annotations

import io
import itertools
import json
import re
from typing import Any

import httpx
import pytest
from auth_lab import Town, town
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from live import LiveRuntime
from rest_lab import fields, problem, vm

from ryu_vmm.rest import stream

__all__ = ["town"]

#: Words that tell a tenant of somebody else.
BETAS = ("b-vm2", "b-net", "beta", "beta-1", "02:00:00:00:00:02", "10.0.0.2", "o-vm3", "o-net", "o-1")


def names(response: httpx.Response) -> list[str]:
    assert response.status_code == 200, response.text
    return [item["name"] for item in response.json()["items"]]


def guest(name: str, network: str, nve: str = "nve1", port: str = "acme-9", n: int = 9, **more: Any) -> dict[str, Any]:
    return {**vm(n, nve, network=network, port=port, **more), "name": name}


def moved(town: Town, name: str, to: str, **more: Any) -> dict[str, Any]:
    response = town.of("ops").post("/v1/moves", json={"vm": name, "to": to, **more})
    assert response.status_code == 202, response.text
    document: dict[str, Any] = response.json()
    return document


def telling(text: str) -> set[str]:
    """What a text tells of others."""
    return {word for word in BETAS if re.search(rf"(?<![\w.:-]){re.escape(word)}(?![\w.:-])", text)}


def clean(response: httpx.Response) -> httpx.Response:
    """The response, which tells acme nothing of others that acme did not say itself."""
    said = str(response.request.url) + " " + response.request.content.decode()
    assert telling(response.text) <= telling(said), response.text
    return response


# --- what is seen -----------------------------------------------------------------------------------------------
def test_lists_hold_what_is_the_tenants(town: Town) -> None:
    acme, beta, ops = town.of("acme"), town.of("beta"), town.of("ops")
    assert names(clean(acme.get("/v1/vms"))) == ["a-vm1"]
    assert names(beta.get("/v1/vms")) == ["b-vm2"]
    assert names(ops.get("/v1/vms")) == ["a-vm1", "b-vm2", "o-vm3"]
    assert names(clean(acme.get("/v1/networks"))) == ["a-net"]
    assert names(town.of("eyes").get("/v1/networks")) == ["a-net", "b-net", "o-net"]
    entries = clean(acme.get("/v1/directory")).json()["items"]
    assert [(e["vm"], e["nve"], e["nve_ipv4"], e["nve_ipv6"]) for e in entries] == [("a-vm1", "nve1", None, None)]
    assert ops.get("/v1/directory").json()["items"][0]["nve_ipv4"] == "192.168.100.1"


def test_a_tenants_vm_in_a_network_of_the_operator(town: Town) -> None:
    ops, acme = town.of("ops"), town.of("acme")
    shared = {**guest("a-shared", "o-net", "nve3", "o-9"), "tenant": "acme"}
    assert ops.post("/v1/vms", json=shared).status_code == 201
    assert names(acme.get("/v1/vms")) == ["a-shared", "a-vm1"]
    assert names(acme.get("/v1/networks")) == ["a-net"]
    problem(acme.get("/v1/networks/o-net"), 404)
    assert [e["vm"] for e in acme.get("/v1/directory").json()["items"]] == ["a-shared", "a-vm1"]


def test_what_is_others_is_not_there(town: Town) -> None:
    acme = town.of("acme")
    hidden, absent = "b-vm2", "no-such"
    for path, hide in (
        ("/v1/vms/{}", hidden),
        ("/v1/networks/{}", "b-net"),
        ("/v1/directory?vm={}", hidden),
        ("/v1/directory?network={}", "b-net"),
        ("/v1/vms?network={}", "b-net"),
        ("/v1/vms?nve={}", "nve2"),
    ):
        found, missing = acme.get(path.format(hide)), acme.get(path.format(absent))
        assert (found.status_code, missing.status_code) == (404, 404)
        assert found.text.replace(hide, absent) == missing.text, "the same words as for what nobody registered"
    deleted, missing = acme.delete(f"/v1/vms/{hidden}"), acme.delete(f"/v1/vms/{absent}")
    assert (deleted.status_code, deleted.text.replace(hidden, absent)) == (404, missing.text)
    assert hidden in town.runtime.state.vms
    for query in ("mac=02:00:00:00:00:02", "ip=10.0.0.2", "ip=2001:db8::2"):
        assert acme.get(f"/v1/directory?{query}").json()["items"] == []
        assert len(town.of("beta").get(f"/v1/directory?{query}").json()["items"]) == 1


def test_moves_are_seen_by_whose_they_are(town: Town) -> None:
    a, b = moved(town, "a-vm1", "nve2"), moved(town, "b-vm2", "nve3")
    acme, beta = town.of("acme"), town.of("beta")
    assert [m["id"] for m in clean(acme.get("/v1/moves")).json()["items"]] == [a["id"]]
    assert [m["id"] for m in beta.get("/v1/moves").json()["items"]] == [b["id"]]
    assert acme.get("/v1/moves?vm=b-vm2").json()["items"] == []
    for number in range(1, 30):  # every number there is
        status = acme.get(f"/v1/moves/{number}").status_code
        assert status == (200 if number == a["id"] else 404)
    found, missing = acme.post(f"/v1/moves/{b['id']}/abort"), acme.post("/v1/moves/99/abort")
    assert (found.status_code, found.text.replace(str(b["id"]), "99")) == (404, missing.text)
    assert town.runtime.the(b["id"]).open
    assert acme.post(f"/v1/moves/{a['id']}/abort").json()["state"] == "aborted"


def test_an_old_move_of_a_name_that_is_anothers_now(town: Town) -> None:
    old = moved(town, "a-vm1", "nve2")
    ops = town.of("ops")
    assert ops.delete("/v1/vms/a-vm1").status_code == 204
    assert ops.post("/v1/vms", json=guest("a-vm1", "b-net")).status_code == 201
    assert town.of("beta").get("/v1/moves").json()["items"] == []
    problem(town.of("beta").get(f"/v1/moves/{old['id']}"), 404)
    assert town.of("acme").get(f"/v1/moves/{old['id']}").status_code == 200


def test_pages_are_filled_with_what_is_seen(town: Town) -> None:
    ops, acme = town.of("ops"), town.of("acme")
    mixed = [
        guest(f"{who}-{n:02}", f"{who}-net", "nve3", f"p{who}{n}", n=n + 20 + 100 * (who == "b"))
        for n in range(10)
        for who in ("a", "b")
    ]
    assert ops.post("/v1/vms", json=mixed).status_code == 201
    seen, after = [], None
    while True:
        page = clean(acme.get("/v1/vms", params={"limit": 3, **({"after": after} if after else {})}))
        seen.append(names(page))
        after = page.json()["next"]
        assert ("Link" in page.headers) == (after is not None)
        if after is None:
            break
    assert [len(part) for part in seen] == [3, 3, 3, 2], "no holes, and nothing left to count"
    assert [name for part in seen for name in part] == [*(f"a-{n:02}" for n in range(10)), "a-vm1"]
    within = acme.get("/v1/directory?limit=5").json()
    assert len(within["items"]) == 5
    assert within["next"].startswith("a-")
    assert names(acme.get("/v1/vms?network=a-net&nve=nve3")) == [f"a-{n:02}" for n in range(10)]


def stream_of(client: httpx.Client) -> list[dict[str, Any]]:
    document = client.get("/v1/events?follow=0&limit=10000").json()
    items: list[dict[str, Any]] = document["items"]
    return items


def test_events_are_the_tenants(town: Town) -> None:
    a, b = moved(town, "a-vm1", "nve2"), moved(town, "b-vm2", "nve3")
    town.runtime.unplug("nve2", "beta-1")
    town.runtime.unplug("nve1", "acme-1")
    everything, acme = stream_of(town.of("ops")), stream_of(town.of("acme"))
    assert {event["fields"].get("tenant") for event in acme} == {"acme"}
    assert {event["fields"].get("move") for event in acme} - {None} == {a["id"]}
    assert [e for e in everything if e["fields"].get("tenant") == "acme"] == acme
    assert any(e["fields"].get("move") == b["id"] for e in stream_of(town.of("beta")))
    assert any(e["kind"] == "port.gone" for e in acme)
    assert not telling(json.dumps(acme))
    limited = town.of("acme").get("/v1/events?follow=0&limit=1").json()
    assert (len(limited["items"]), limited["next"]) == (1, limited["items"][0]["id"])


def test_an_open_stream_is_filtered_and_ends_with_its_credentials(
    town: Town, monkeypatch: pytest.MonkeyPatch
) -> None:
    environ = {
        "REQUEST_METHOD": "GET", "PATH_INFO": "/v1/events", "SERVER_NAME": "nva", "SERVER_PORT": "80",
        "wsgi.url_scheme": "http", "wsgi.input": io.BytesIO(),
        "HTTP_AUTHORIZATION": f"Bearer {town.tokens['acme']}",
    }  # fmt: skip
    seen: list[str] = []
    chunks = iter(town.app(environ, lambda line, headers: seen.append(line)))
    assert (next(chunks).startswith(b"retry"), seen) == (True, ["200 OK"])
    moved(town, "b-vm2", "nve3")
    moved(town, "a-vm1", "nve2")
    first = next(chunks)
    assert b'"vm":"a-vm1"' in first
    assert not telling(first.decode())
    town.people = [person for person in town.people if person["name"] != "acme"]
    monkeypatch.setattr(stream, "HEARTBEAT", 0.02)
    town.write()
    assert [chunk for chunk in itertools.islice(chunks, 5) if not chunk.startswith(b":")] == []
    assert next(chunks, None) is None, "it has ended"


# --- what is done -----------------------------------------------------------------------------------------------
def test_a_tenant_registers_vms_in_its_networks(town: Town) -> None:
    acme = town.of("acme")
    made = acme.post("/v1/vms", json=guest("a-new", "a-net"))
    assert (made.status_code, made.json()["tenant"]) == (201, "acme")
    assert acme.post("/v1/vms", json=guest("a-new", "a-net")).status_code == 200
    changed = guest("a-new", "a-net", ipv4=["10.0.9.9"])
    problem(acme.post("/v1/vms", json=changed), 409)
    assert acme.put("/v1/vms/a-new", json=changed).status_code == 200
    left = {**changed, "leave": {"answer": "drop", "seconds": 7}}
    assert acme.put("/v1/vms/a-new", json=left).json()["leave"] == left["leave"]
    assert acme.post("/v1/vms", json=[guest("a-x", "a-net", port="acme-10", n=10)]).status_code == 201
    assert acme.delete("/v1/vms/a-new").status_code == 204
    assert names(acme.get("/v1/vms")) == ["a-vm1", "a-x"]


@pytest.mark.parametrize("method", ["POST", "PUT", "list"])
def test_a_tenant_attaches_to_nothing_of_others(town: Town, method: str) -> None:
    acme, before = town.of("acme"), dict(town.runtime.state.interfaces)

    def refused(body: dict[str, Any]) -> httpx.Response:
        if method == "PUT":
            return clean(acme.put(f"/v1/vms/{body['name']}", json=body))
        return clean(acme.post("/v1/vms", json=body if method == "POST" else [body]))

    hidden, absent = refused(guest("a-x", "b-net")), refused(guest("a-x", "no-such"))
    assert fields(hidden) == fields(absent)
    assert hidden.json()["detail"].replace("b-net", "no-such") == absent.json()["detail"]
    assert "interfaces[0].network" in fields(refused(guest("a-x", "o-net")))[0]
    for port in ("beta-1", "o-1", "eth0", "vxlan", "acme", "xacme-1"):
        assert fields(refused(guest("a-x", "a-net", "nve2", port)))[0].endswith("interfaces[0].port")
    attached = guest("a-x", "a-net", attachments=[{"nve": "nve2", "port": "eth1"}])
    assert fields(refused(attached))[0].endswith("attachments[0].port")
    assert fields(refused({**guest("a-x", "a-net"), "tenant": "beta"}))[0].endswith("tenant")
    for name in ("b-vm2", "o-vm3"):  # taken by others, whatever else it would be
        assert problem(refused(guest(name, "a-net")), 409)["detail"] == f"the name {name} is taken"
    assert town.runtime.state.interfaces == before


def test_a_refusal_names_nobody_else(town: Town) -> None:
    ops, acme = town.of("ops"), town.of("acme")
    # the operator's gateway in acme's network, at a port that acme may use as well
    gateway = guest("o-gate", "a-net", "nve1", "acme-gate", n=77)
    gateway["interfaces"].append({**guest("x", "b-net", "nve1", "beta-gate", n=78)["interfaces"][0], "name": "eth1"})
    assert ops.post("/v1/vms", json=gateway).json()["tenant"] is None
    for clash in (
        guest("a-x", "a-net", port="acme-gate"),
        guest("a-x", "a-net", mac="02:00:00:00:00:4d"),
        guest("a-x", "a-net", ipv4=["10.0.0.77"]),
    ):
        document = problem(clean(acme.post("/v1/vms", json=clash)), 409)
        assert "o-gate" not in json.dumps(document)
        assert "o-gate" in ops.post("/v1/vms", json={**clash, "tenant": "acme"}).text
    taken = acme.post("/v1/moves", json={"vm": "a-vm1", "to": "nve2", "ports": {"eth0": "acme-gate"}})
    assert taken.status_code == 202, "that is on another NVE"
    ops.post("/v1/vms", json=guest("o-two", "o-net", "nve3", "acme-1", n=79))
    acme.post(f"/v1/moves/{taken.json()['id']}/abort")
    clash = problem(clean(acme.post("/v1/moves", json={"vm": "a-vm1", "to": "nve3"})), 409)
    assert "o-two" not in json.dumps(clash)


def test_a_tenant_moves_its_own_vms(town: Town) -> None:
    acme = town.of("acme")
    hidden = problem(acme.post("/v1/moves", json={"vm": "b-vm2", "to": "nve1"}), 404)
    absent = problem(acme.post("/v1/moves", json={"vm": "no-such", "to": "nve1"}), 404)
    assert json.dumps(hidden).replace("b-vm2", "no-such") == json.dumps(absent)
    port = acme.post("/v1/moves", json={"vm": "a-vm1", "to": "nve2", "ports": {"eth0": "beta-7"}})
    assert fields(port) == ["ports.eth0"]
    made = acme.post("/v1/moves", json={"vm": "a-vm1", "to": "nve2", "request_id": "r1"})
    assert (made.status_code, made.json()["requested_by"], made.json()["request_id"]) == (202, "acme", "r1")
    again = acme.post("/v1/moves", json={"vm": "a-vm1", "to": "nve2"}, headers={"Idempotency-Key": "r1"})
    assert again.json()["id"] == made.json()["id"]
    assert acme.get("/v1/moves").json()["items"][0]["request_id"] == "r1"
    for hook in ("redirect", "activate"):
        problem(acme.post(f"/v1/moves/{made.json()['id']}/{hook}"), 403)


def test_a_tenant_gives_its_moves_ports_that_are_open_to_it(town: Town) -> None:
    acme, number = town.of("acme"), moved(town, "a-vm1", "nve2")["id"]
    closed = acme.patch(f"/v1/moves/{number}", json={"ports": {"eth0": "beta-7"}})
    assert fields(closed) == ["ports.eth0"]
    assert acme.patch(f"/v1/moves/{number}", json={"ports": {"eth0": "acme-7"}}).status_code == 200
    theirs = moved(town, "b-vm2", "nve3")["id"]
    problem(acme.patch(f"/v1/moves/{theirs}", json={"ports": {"eth0": "acme-7"}}), 404)


def test_a_tenant_names_no_port_anew_that_is_not_open_to_it(town: Town) -> None:
    acme = town.of("acme")
    known = acme.get("/v1/vms/a-vm1").json()["interfaces"][0]
    same = {key: known[key] for key in ("name", "network", "mac", "ipv4", "ipv6", "nve", "port")}
    closed = acme.put("/v1/vms/a-vm1", json={"interfaces": [{**same, "port": "beta-7"}]})
    assert fields(closed) == ["interfaces[0].port"]
    anew = acme.put("/v1/vms/a-vm1", json={"interfaces": [{**same, "port": "acme-7"}]})
    assert anew.json()["interfaces"][0]["pending"] == "acme-7"


def test_request_ids_are_each_tenants_own(town: Town) -> None:
    mine = town.of("acme").post("/v1/moves", json={"vm": "a-vm1", "to": "nve2", "request_id": "r"}).json()
    theirs = town.of("beta").post("/v1/moves", json={"vm": "b-vm2", "to": "nve3", "request_id": "r"})
    assert theirs.status_code == 202, "an id that another tenant uses is free"
    assert theirs.json()["id"] != mine["id"]
    assert theirs.json()["vm"] == "b-vm2"


# --- hypervisors ------------------------------------------------------------------------------------------------
def test_a_hypervisor_sees_what_concerns_its_nves(town: Town) -> None:
    host = town.of("host1")
    assert names(host.get("/v1/nves")) == ["nve1"]
    problem(host.get("/v1/nves/nve2"), 404)
    problem(host.post("/v1/nves/nve2/verify"), 404)
    assert host.post("/v1/nves/nve1/verify").status_code == 200
    assert names(host.get("/v1/vms")) == ["a-vm1"]
    assert names(host.get("/v1/networks")) == ["a-net"]
    assert host.get("/v1/vms/a-vm1/explain").status_code == 200
    problem(host.get("/v1/vms/b-vm2/explain"), 404)
    assert [e["vm"] for e in host.get("/v1/directory").json()["items"]] == ["a-vm1"]
    moved(town, "b-vm2", "nve1")
    assert names(host.get("/v1/vms")) == ["a-vm1", "b-vm2"], "one is on its way"
    assert names(host.get("/v1/networks")) == ["a-net", "b-net"]


def test_a_hypervisor_sees_what_may_show_up(town: Town) -> None:
    roaming = guest("o-roams", "o-net", "nve3", "o-9", attachments=[{"nve": "nve1", "port": "o-9"}])
    town.of("ops").post("/v1/vms", json=roaming)
    assert names(town.of("host1").get("/v1/vms")) == ["a-vm1", "o-roams"]


def test_a_hypervisor_drives_moves_of_its_nves(town: Town) -> None:
    runtime: LiveRuntime = town.runtime
    away, foreign = moved(town, "a-vm1", "nve2"), moved(town, "b-vm2", "nve3")
    host1, host3 = town.of("host1"), town.of("host3")
    assert [m["id"] for m in host1.get("/v1/moves").json()["items"]] == [away["id"]]
    runtime.until(lambda: runtime.the(away["id"]).state == "prepared")
    problem(host3.post(f"/v1/moves/{away['id']}/redirect"), 404)
    assert host1.post(f"/v1/moves/{away['id']}/redirect").status_code == 202
    for hook in ("redirect", "activate", "abort"):
        problem(host1.post(f"/v1/moves/{foreign['id']}/{hook}"), 404)
    assert host3.post(f"/v1/moves/{foreign['id']}/abort").status_code == 202, "it is at the other end"
    kinds = {e["kind"] for e in stream_of(host3)}
    assert "move.state" in kinds
    assert not [e for e in stream_of(host3) if e["fields"].get("move") == away["id"]]


def test_a_hypervisor_names_its_ports_at_either_end(town: Town) -> None:
    number = moved(town, "b-vm2", "nve3")["id"]
    problem(town.of("host1").patch(f"/v1/moves/{number}", json={"ports": {"eth0": "vnet7"}}), 404)
    amended = town.of("host3").patch(f"/v1/moves/{number}", json={"ports": {"eth0": "vnet7"}})
    assert amended.json()["legs"][0]["destination"]["port"] == "vnet7"


def test_a_hypervisor_asks_for_moves_away_from_its_nves(town: Town) -> None:
    host1, host3 = town.of("host1"), town.of("host3")
    problem(host3.post("/v1/moves", json={"vm": "a-vm1", "to": "nve3"}), 404)
    roaming = guest("o-roams", "o-net", "nve3", "o-9", attachments=[{"nve": "nve1", "port": "o-9"}])
    town.of("ops").post("/v1/vms", json=roaming)
    problem(host1.post("/v1/moves", json={"vm": "o-roams", "to": "nve1"}), 409)
    made = host1.post("/v1/moves", json={"vm": "a-vm1", "to": "nve2"})
    assert (made.status_code, made.json()["requested_by"]) == (202, "host1")


# --- whatever is asked ------------------------------------------------------------------------------------------
PATHS = st.sampled_from(
    ["/v1/vms", "/v1/networks", "/v1/directory", "/v1/moves", "/v1/events", "/v1/vms/b-vm2", "/v1/networks/o-net",
     "/v1/moves/2", "/v1/vms/o-vm3", "/v1/vms/b-vm2/explain", "/v1/nves", "/v1/nves/nve2", "/metrics", "/v1/health"]
)  # fmt: skip
VALUES = st.sampled_from(["b-net", "o-net", "b-vm2", "nve2", "nve3", "10.0.0.2", "02:00:00:00:00:02", "open", "a-vm1"])
QUERIES = st.dictionaries(st.sampled_from(["network", "vm", "nve", "ip", "mac", "state"]), VALUES, max_size=2)


@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(path=PATHS, query=QUERIES)
def test_no_question_tells_of_others(town: Town, path: str, query: dict[str, str]) -> None:
    if not town.runtime.state.moves:
        moved(town, "a-vm1", "nve2")
        moved(town, "b-vm2", "nve3")
    asked = {**query, **({"follow": "0"} if path == "/v1/events" else {})}
    response = town.of("acme").get(path, params=asked)
    assert telling(response.text) <= telling(f"{path} {list(query.values())}"), response.text
