"""tools/forge: nobody is let in who may not be, and the tool notices if somebody is."""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "tools"))

from proof.rest_forgery import Forger, attempts, run  # noqa: E402
from proof.rest_stage import Stage  # noqa: E402

from ryu_vmm.rest.routes import ROUTES  # noqa: E402


def test_nobody_is_let_in_who_may_not_be(tmp_path: Path) -> None:
    part = run(tmp_path)
    assert part.data["what"] == []
    assert (part.data["believed"], part.data["leaked"]) == (0, [])
    assert part.data["tried"] > 1000


def test_the_tool_notices_an_open_door(tmp_path: Path) -> None:
    with Stage(tmp_path) as stage:
        forger = Forger(stage.url, stage.cacert)
        # a reader's token that is the admin's, a tenant's that is the reader's
        known = {**stage.known, "reader": stage.known["admin"], "tenant": stage.known["reader"]}
        some = [route for route in ROUTES if route.tag in ("networks", "vms")]
        tried, believed = attempts(
            stage.url, known, cacert=stage.cacert, theirs=stage.theirs, forger=forger, routes=some
        )
    assert 0 < believed < tried
    told = "\n".join(forger.believed)
    assert "a role that does not suffice as reader: DELETE /v1/vms/b-vm: 204" in told
    assert "somebody else's as tenant: GET /v1/vms: 200, names ['nve2', 'b-net', 'b-vm']" in told
    assert forger.believed[-1] == "something was changed"
