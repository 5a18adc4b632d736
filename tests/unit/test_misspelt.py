"""What is misspelt is refused with what may have been meant; what is missing is said in a line."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from oslo_config import cfg

from ryu_vmm import config, misspelt
from ryu_vmm.agent import cli as agent_cli
from ryu_vmm.agent.agent import Agent
from ryu_vmm.agent.definition import Configuration, TaskDefinition
from ryu_vmm.checking import check
from ryu_vmm.cli.root import vmm
from ryu_vmm.errors import InvalidInput, VmmError
from ryu_vmm.logs import formatter
from ryu_vmm.nearest import did_you_mean, nearest
from ryu_vmm.rest.queries import MovesQuery
from ryu_vmm.schema import EvacuationInput, InventoryInput, NetworkInput, VmInput


def test_the_nearest_name() -> None:
    known = ["wsapi_host", "wsapi_port", "store"]
    assert nearest("wsapi-prot", known) == nearest("WSAPI_PORTS", known) == "wsapi_port"
    assert did_you_mean("stor", known) == "; did you mean store?"
    assert did_you_mean("frobnicate", known) == did_you_mean("x", []) == ""


@pytest.mark.parametrize(
    ("wanted", "given", "field", "meant"),
    [
        (NetworkInput, {"name": "b", "vni": 5, "polcy": {}}, "polcy", "policy"),
        (NetworkInput, {"name": "b", "vni": 5, "policy": {"unknwn": "drop"}}, "policy.unknwn", "unknown"),
        (InventoryInput, {"nve": []}, "nve", "nves"),
        (InventoryInput, {"vms": [{"interfaces": [{"macc": "x"}]}]}, "vms[0].interfaces[0].macc", "mac"),
        (list[VmInput], [{"name": "a", "interface": []}], "[0].interface", "interfaces"),
        (EvacuationInput, {"nve": "a", "parallell": 4}, "parallell", "parallel"),
        (MovesQuery, {"stat": "open"}, "stat", "state"),
        (Configuration, {"nve": "n", "listen": "::1", "tokenfile": "/x"}, "tokenfile", "token_file"),
        (Configuration, {"nve": "n", "listen": "::1", "times": {"quite": 1}}, "times.quite", "quiet"),
        (TaskDefinition, {"name": "t", "interfaces": [{"adresses": []}]}, "interfaces[0].adresses", "addresses"),
    ],
)
def test_an_unknown_field_is_refused_with_the_nearest(wanted: Any, given: Any, field: str, meant: str) -> None:
    with pytest.raises(InvalidInput) as refusal:
        check(wanted, given)
    listed: Any = refusal.value.details["errors"]
    why = {wrong["field"]: wrong["why"] for wrong in listed}
    assert why[field] == f"unknown field; did you mean {meant}?"


# --- ryu-manager's configuration ------------------------------------------------------------------------------
def read(path: Path, text: str) -> cfg.ConfigOpts:
    path.write_text(text)
    conf = cfg.ConfigOpts()
    conf.register_opts([cfg.StrOpt("wsapi_host"), cfg.IntOpt("wsapi_port")])
    conf.register_opts(config.OPTIONS, config.GROUP)
    conf(args=["--config-file", str(path)], default_config_files=[])
    return conf


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[vmm]\nstoer = x\n", "[vmm] has no option stoer; did you mean store?"),
        ("[vmm]\nrest-cert = x\n", "[vmm] has no option rest-cert; did you mean rest_cert?"),
        ("[vmm]\nfrobnicate = x\n", "[vmm] has no option frobnicate"),
        ("[vmm]\nwsapi_port = 1\n", "[vmm] has no option wsapi_port; it is one of [DEFAULT]"),
        ("[DEFAULT]\nstore = x\n", "store is an option of [vmm], not of [DEFAULT]"),
        ("[VMM]\nstore = x\n", "there is no group [VMM]; did you mean [vmm]?"),
        ("[vmn]\nstore = x\n", "there is no group [vmn]; did you mean [vmm]?"),
    ],
)
def test_a_configuration_with_a_mistake(tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / "vmm.conf"
    with pytest.raises(InvalidInput) as refusal:
        misspelt.check_files(read(path, text), config.GROUP)
    assert refusal.value.message == f"{path}: {words}"


def test_what_belongs_to_others_is_left_to_them(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    text = "[DEFAULT]\nwsapi_port = 1\nwsapi_prot = 1\nfoo = 1\n[other_app]\nx = 1\n[vmm]\nstore = :memory:\n"
    misspelt.check_files(read(tmp_path / "vmm.conf", text), config.GROUP)
    assert [r.getMessage().partition(": ")[2] for r in caplog.records] == [
        "[DEFAULT] has no option wsapi_prot; did you mean wsapi_port?"
    ]


def test_the_sample_has_no_mistake(tmp_path: Path) -> None:
    text = "\n".join(line.removeprefix("#") for line in config.sample().splitlines() if not line.startswith("# "))
    conf = read(tmp_path / "vmm.conf", text.replace(" = \n", " = x\n").replace("=\n", "= x\n"))
    misspelt.check_files(conf, config.GROUP)


# --- what is not there ----------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("line", "code"),
    [
        ("status --token-file {0}", 1),
        ("status --url https://127.0.0.1:1 --cacert {0}", 3),
        ("status --url https://127.0.0.1:1 --cert {0}", 3),
        ("inventory apply {0}", 2),
        ("inventory check {0}", 2),
        ("credentials list --file {0}", 6),
        ("credentials token ops --file {0}", 4),
        ("credentials new ops --role admin --file {0}/x", 1),
    ],
)
def test_a_file_that_is_missing_is_a_message(tmp_path: Path, line: str, code: int) -> None:
    missing = tmp_path / "missing"
    result = CliRunner().invoke(vmm, line.format(missing).split())
    assert (result.exit_code, "Traceback" in result.output) == (code, False)
    assert isinstance(result.exception, SystemExit)
    assert str(missing) in result.output or code == 4


def test_a_key_alone_is_refused() -> None:
    result = CliRunner().invoke(vmm, ["status", "--key", "/x"])
    assert result.exit_code == 2
    assert "--key is of no use without --cert" in result.output


def settings(tmp_path: Path, **more: Any) -> Configuration:
    secret = tmp_path / "secret"
    secret.write_text("s" * 32)
    secret.chmod(0o600)
    facts = {
        "nve": "nve1", "listen": "127.0.0.1", "port": 0, "secret_file": str(secret), "state": str(tmp_path / "state"),
        "run": str(tmp_path / "run"), **more,
    }  # fmt: skip
    return Configuration(**{name: value for name, value in facts.items() if value is not None})


@pytest.mark.parametrize(
    "more",
    [
        {"token_file": "/missing/file"},
        {"secret_file": "/missing/file"},
        {"nva": "https://127.0.0.1:1", "nva_cacert": "/missing/file"},
        {"nva": "https://127.0.0.1:1", "nva_cert": "/missing/file"},
        {"secret_file": None, "tls": {"cert": "/missing/file", "key": "/missing/file", "ca": "/missing/file"}},
    ],
    ids=str,
)
def test_an_agent_whose_files_are_missing_does_not_start(tmp_path: Path, more: dict[str, Any]) -> None:
    agent = Agent(settings(tmp_path, **more))
    with pytest.raises(VmmError, match="/missing/file"):
        agent.start()


@pytest.mark.parametrize("command", [["serve", "--config"], ["run"]])
def test_an_agents_missing_file_is_a_message(tmp_path: Path, command: list[str]) -> None:
    result = CliRunner().invoke(agent_cli.main, [*command, str(tmp_path / "missing")])
    assert result.exit_code == 6
    assert result.output == f"vmm-agent: {tmp_path / 'missing'}: No such file or directory\n"


def test_an_agent_sends_its_token_where_it_cannot_be_read_only(tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("vmm_abc_def\n")
    token.chmod(0o600)
    for nva in ("http://127.0.0.1:8080", "http://[::1]:8080", "http://localhost:8080", "https://nva.example.org"):
        Agent(settings(tmp_path, nva=nva, token_file=str(token))).tasks.nva.check()
    far = settings(tmp_path, nva="http://192.0.2.1:8080", token_file=str(token))
    agent = Agent(far)
    with pytest.raises(InvalidInput, match=r"a token would go to .* use https, or plaintext: true"):
        agent.start()
    with pytest.raises(InvalidInput):
        agent.tasks.nva.open_moves()  # nor when nobody has looked before
    Agent(far.model_copy(update={"plaintext": True})).tasks.nva.check()
    token.chmod(0o604)
    with pytest.raises(InvalidInput, match="others can open"):
        Agent(settings(tmp_path, token_file=str(token))).start()


# --- logs -----------------------------------------------------------------------------------------------------
def record(**more: Any) -> logging.LogRecord:
    made = logging.LogRecord("ryu_vmm.x", logging.WARNING, "x.py", 1, "%s said\n%s", ("nve1", "no"), None)
    made.created, made.msecs = 1_000_000_000.25, 250.0
    made.__dict__.update(more)
    return made


def test_a_log_line_has_time_level_and_module() -> None:
    assert formatter(False).format(record()) == "2001-09-09T01:46:40.250Z WARNING ryu_vmm.x: nve1 said\nno"


def test_a_log_line_may_be_a_json_object() -> None:
    try:
        raise ValueError("x")
    except ValueError as e:
        line = formatter(True).format(record(exc_info=(type(e), e, e.__traceback__)))
    assert "\n" not in line
    document = json.loads(line)
    assert document.pop("traceback").endswith("ValueError: x")
    assert document == {
        "time": "2001-09-09T01:46:40.250Z", "level": "WARNING", "module": "ryu_vmm.x", "message": "nve1 said\nno",
    }  # fmt: skip
