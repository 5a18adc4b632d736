"""What a new user gets wrong first: ryu-manager says it in a line, and its log lines say when, how bad and who."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Start = Callable[..., Any]
LINE = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z (DEBUG|INFO|WARNING|ERROR) [\w.]+: ")


def test_whatever_is_wrong_at_the_start_is_one_line(ryu_manager: Start, tmp_path: Path) -> None:
    missing = tmp_path / "missing"
    log, inventory = tmp_path / "vmm.log", tmp_path / "inventory.conf"
    inventory.write_text(f"[vmm]\nstore = :memory:\ninventory = {missing}\n")
    (tmp_path / "latin.conf").write_bytes(b"[vmm]\ninventory = caf\xe9.yaml\n")
    (tmp_path / "misspelt.conf").write_text("[vmm]\nstoer = :memory:\n")
    wrong = {
        "inventory": (["--config-file", str(inventory), "--log-file", str(log)], f"{missing}: No such file"),
        "misspelt": (["--config-file", str(tmp_path / "misspelt.conf")], "no option stoer; did you mean store?"),
        "configuration": (["--config-file", str(missing)], str(missing)),
        "log": (["--log-file", f"{missing}/log"], f"{missing}/log: No such file or directory"),
        "not text": (["--config-file", str(tmp_path / "latin.conf")], "latin.conf: line 2: not UTF-8"),
        "no file": (["./missing.py"], "there is no application ./missing.py"),
        "application": (["ryu_vm"], "there is no application ryu_vm; did you mean ryu_vmm?"),
        "option": (["--wsapi-prot", "1"], "--wsapi-prot; did you mean --wsapi-port?"),
    }
    started = {name: ryu_manager(*arguments, "ryu_vmm") for name, (arguments, _) in wrong.items()}
    for name, manager in started.items():
        assert manager.process.wait(60) == (2 if name == "option" else 1), name
        last = manager.text.splitlines()[-1]
        assert wrong[name][1] in last, name
        assert not LINE.match(last), name  # a message of the command, not of the log
        assert "Traceback" not in manager.text, name
    assert "No such file" in log.read_text()  # where the log is elsewhere, it says so too
    assert started["inventory"].text.count("No such file") == 1


@pytest.mark.parametrize("how", ["plain", "configuration"])
def test_log_lines(ryu_manager: Start, tmp_path: Path, how: str) -> None:
    lines = ["[DEFAULT]", f"log_file = {tmp_path / 'vmm.log'}"]
    lines += ["log_json = true"] if how == "configuration" else []
    (tmp_path / "vmm.conf").write_text("\n".join([*lines, "[vmm]", "store = :memory:", ""]))
    manager = ryu_manager("--config-file", str(tmp_path / "vmm.conf"), "ryu_vmm")
    manager.connect(manager.rest).close()
    assert manager.end() == 0
    for text in (manager.text, (tmp_path / "vmm.log").read_text()):  # Ryu's own options hold as well
        assert "store :memory:" in text
        for line in text.splitlines():
            if how == "plain":
                assert LINE.match(line), line
            else:
                assert {"time", "level", "module", "message"} <= json.loads(line).keys()
