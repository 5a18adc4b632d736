"""``vmm credentials``, and how ``vmm`` shows who it is."""

from __future__ import annotations

import json
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest
from auth_lab import Town, town
from click.testing import CliRunner, Result
from live import serving

from ryu_vmm import credentials
from ryu_vmm.cli.client import Shown
from ryu_vmm.cli.context import Context
from ryu_vmm.cli.root import vmm as command
from ryu_vmm.rest.authentication import Access, Keyring

__all__ = ["town"]


@pytest.fixture(autouse=True)
def cheap(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hashes that cost nothing."""
    slow = credentials.slow_hash
    monkeypatch.setattr(credentials, "slow_hash", lambda secret, salt=None, cost=(2, 8, 1): slow(secret, salt, cost))


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "credentials.json"


def run(line: str, file: Path, code: int = 0, stdin: str = "", **env: str) -> Result:
    words = line.split()
    if words[0] == "credentials":
        words += ["--file", str(file)]
    result = CliRunner(env=env).invoke(command, words, input=stdin, catch_exceptions=False)
    assert result.exit_code == code, (line, result.exit_code, result.output)
    return result


def who(file: Path, token: str) -> Any:
    """Whom a token is taken for."""
    return Access(Keyring(file)).identify({"HTTP_AUTHORIZATION": f"Bearer {token.strip()}", "REMOTE_ADDR": "192.0.2.1"})


# --- the file ---------------------------------------------------------------------------------------------------
def test_a_principal_is_added_and_its_token_shown_once(file: Path) -> None:
    made = run("credentials new acme --role tenant --port */acme-* --expires 90d --note web", file)
    assert made.stdout.startswith("vmm-")
    assert made.stdout.count("\n") == 1, "the token and nothing else, for a pipe"
    assert "shown this once" in made.stderr
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    principal = who(file, made.stdout)
    assert (principal.name, principal.role, principal.tenant) == ("acme", "tenant", "acme")
    assert principal.ports == ("*/acme-*",)
    assert made.stdout.strip()[13:] not in file.read_text()
    listed = run("credentials list", file)
    assert "acme" in listed.stdout
    assert made.stdout.strip()[13:] not in listed.stdout
    assert "scrypt" not in run("credentials list --json", file).stdout


def test_every_role_can_be_added(file: Path) -> None:
    run("credentials new ops --role admin", file)
    run("credentials new eyes --role reader", file)
    run("credentials new web --role tenant --tenant acme", file)
    run("credentials new host1 --role hypervisor --nve nve1 --nve nve2 --certificate DNS:host1 --no-token", file)
    found = {entry.name: entry for entry in credentials.load(file).principals}
    assert found["web"].tenant == "acme"
    assert (found["host1"].nves, found["host1"].tokens) == (["nve1", "nve2"], [])
    document = json.loads(run("credentials new x --role reader --json", file).stdout)
    assert who(file, document["token"]).name == document["name"] == "x"


def test_what_does_not_fit_changes_nothing(file: Path) -> None:
    run("credentials new ops --role admin", file)
    before = file.read_bytes()
    wrong = {
        "credentials new ops --role reader": (5, "there is a principal ops already"),
        "credentials new a --role hypervisor": (6, "nves goes with the role hypervisor"),
        "credentials new a --role admin --nve nve1": (6, "nves goes with"),
        "credentials new a --role reader --port */x": (6, "ports are for tenants"),
        "credentials new a --role tenant --port x": (6, "NVE/PORT"),
        "credentials new a --role reader --certificate host": (6, "not of the form"),
        "credentials new a/b --role reader": (6, "a name"),
        "credentials new a --role reader --no-token": (2, "by what else"),
        "credentials new a --role god": (2, "god"),
        "credentials new a --role reader --expires yesterday": (2, "neither a span"),
        "credentials new a --role reader --expires 2020-01-01T00:00:00Z": (2, "past"),
        "credentials remove nobody": (4, "no principal nobody"),
        "credentials token nobody": (4, "no principal nobody"),
        "credentials revoke 00000000": (4, "no token of this id"),
    }
    for line, (code, said) in wrong.items():
        assert said in run(line, file, code).stderr, line
        assert file.read_bytes() == before
    file.chmod(0o644)
    assert "chmod 0600" in run("credentials new a --role reader", file, 6).stderr
    assert "chmod 0600" in run("credentials list", file, 6).stderr


def test_tokens_are_added_and_revoked(file: Path) -> None:
    first = run("credentials new ops --role admin", file).stdout
    second = run("credentials token ops --expires 12h", file).stdout
    assert who(file, first).name == who(file, second).name == "ops"
    run(f"credentials revoke {first[4:12]}", file)
    assert who(file, second).name == "ops"
    with pytest.raises(Exception, match="not known"):
        who(file, first)
    run("credentials remove ops", file)
    assert credentials.load(file).principals == []


def test_a_file_for_a_group_stays_so(file: Path) -> None:
    run("credentials new ops --role admin", file)
    file.chmod(0o640)
    run("credentials new eyes --role reader", file)
    assert stat.S_IMODE(file.stat().st_mode) == 0o640


def test_a_link_stays_a_link(file: Path, tmp_path: Path) -> None:
    link = tmp_path / "link.json"
    run("credentials new ops --role admin", file)
    link.symlink_to(file)
    run("credentials new eyes --role reader", link)
    assert link.is_symlink()
    assert [entry.name for entry in credentials.load(file).principals] == ["ops", "eyes"]


def test_a_failed_write_leaves_the_file_as_it_was(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run("credentials new ops --role admin", file)
    before = file.read_bytes()

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(credentials.os, "fsync", full)
    assert "No space left" in run("credentials new eyes --role reader", file, 1).stderr
    assert file.read_bytes() == before
    assert {path.name for path in file.parent.iterdir()} == {"credentials.json", ".credentials.json.lock"}


# --- showing it -------------------------------------------------------------------------------------------------
@pytest.fixture
def url(town: Town) -> Iterator[str]:
    with serving(town.app) as made:
        yield made


def test_a_token_from_wherever(town: Town, url: str, tmp_path: Path) -> None:
    kept = tmp_path / "token"
    kept.write_text(f"  {town.tokens['ops']} \nand a second line\n")
    kept.chmod(0o600)
    ways: list[tuple[str, dict[str, str], str]] = [
        ("nve list", {"VMM_TOKEN": town.tokens["ops"]}, ""),
        ("nve list", {"VMM_TOKEN_FILE": str(kept)}, ""),
        (f"nve list --token-file {kept}", {"VMM_TOKEN": "wrong"}, ""),
        (f"--token-file {kept} nve list", {}, ""),
        ("nve list --token-file -", {}, town.tokens["ops"]),
    ]
    for line, env, stdin in ways:
        assert "nve1" in run(line, kept, stdin=stdin, VMM_URL=url, **env).stdout
    assert "nve1" in run("nve list", kept, VMM_URL=url, VMM_TOKEN=town.tokens["eyes"]).stdout


def test_refusals_have_their_exit_code(town: Town, url: str, tmp_path: Path) -> None:
    def refused(line: str, code: int, **env: str) -> str:
        return run(line, tmp_path, code, VMM_URL=url, **env).stderr

    assert "--token-file" in refused("nve list", 7)
    assert "role tenant" in refused("nve list", 7, VMM_TOKEN=town.tokens["acme"])
    assert "not known" in refused("nve list", 7, VMM_TOKEN="vmm-00000000-" + "A" * 43)
    for n in range(12):
        run("nve list", tmp_path, 7, VMM_URL=url, VMM_TOKEN=f"vmm-{n:08x}-" + "A" * 43)
    assert "too many" in refused("nve list", 7, VMM_TOKEN="vmm-00000000-" + "A" * 43)
    assert json.loads(run("nve list --json", tmp_path, 7, VMM_URL=url).stdout)["status"] == 401


def test_what_is_no_token_is_not_repeated(town: Town, url: str, tmp_path: Path) -> None:
    for odd in ("two words", "new\nline of it", "Bearer x y", "ü"):
        result = run("nve list", tmp_path, 2, VMM_URL=url, VMM_TOKEN=odd)
        assert odd not in result.output
    empty = tmp_path / "empty"
    empty.write_text("\n")
    empty.chmod(0o600)
    assert "no token in" in run(f"nve list --token-file {empty}", tmp_path, 2, VMM_URL=url).stderr
    assert "no token in standard input" in run("nve list --token-file -", tmp_path, 2, VMM_URL=url).stderr
    empty.chmod(0o604)
    assert "chmod 600" in run(f"nve list --token-file {empty}", tmp_path, 2, VMM_URL=url).stderr
    assert "No such file" in run("nve list --token-file /nowhere", tmp_path, 1, VMM_URL=url).stderr


def test_no_token_goes_out_in_the_clear(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VMM_TOKEN", "vmm-00000000-secret")
    for address in ("http://192.0.2.1", "http://nva.example:8080", "http://[2001:db8::1]"):
        with click.Context(click.Command("x")), pytest.raises(click.UsageError, match="for all to read"):
            _ = Context(url=address).client
    for address in ("http://127.0.0.1:1", "http://localhost:1", "http://[::1]:1"):
        with click.Context(click.Command("x")):
            assert Context(url=address).client
    with click.Context(click.Command("x")):
        assert Context(url="http://192.0.2.1", plaintext=True).client
    assert "secret" not in repr(Shown("secret"))


def test_the_audit_and_the_status(town: Town, url: str, tmp_path: Path) -> None:
    ops = {"VMM_URL": url, "VMM_TOKEN": town.tokens["ops"]}
    run("vm remove a-vm1", tmp_path, **ops)
    run("vm remove b-vm2", tmp_path, 4, VMM_URL=url, VMM_TOKEN=town.tokens["acme"])
    run("nve list", tmp_path, 7, VMM_URL=url)
    table = run("audit", tmp_path, **ops).stdout
    assert [word in table for word in ("DELETE /v1/vms/a-vm1", "ops", "acme", "denied", "127.0.0.1")] == [True] * 5
    assert table.index("GET /v1/nves") < table.index("DELETE /v1/vms/a-vm1"), "newest first"
    only = json.loads(run("audit --json --principal acme --result refused --limit 1", tmp_path, **ops).stdout)
    assert [item["path"] for item in only["items"]] == ["/v1/vms/b-vm2"]
    assert "credentials" in run("status", tmp_path, **ops).stdout
    assert "version" not in run("status", tmp_path, VMM_URL=url).stdout


def test_tenants_are_registered_and_shown(town: Town, url: str, tmp_path: Path) -> None:
    ops = {"VMM_URL": url, "VMM_TOKEN": town.tokens["ops"]}
    run("network add new --vni 77 --tenant gamma", tmp_path, **ops)
    run("vm add g-1 --network new --mac 02:00:00:00:07:07 --nve nve1 --port g1", tmp_path, **ops)
    line = "vm add g-2 --network o-net --mac 02:00:00:00:07:08 --nve nve1 --port g2 --tenant gamma"
    run(line, tmp_path, **ops)
    assert json.loads(run("vm show g-1 --json", tmp_path, **ops).stdout)["tenant"] == "gamma"
    shown = run("vm list", tmp_path, **ops).stdout
    assert (shown.count("gamma"), "TENANT" in run("network list", tmp_path, **ops).stdout) == (2, True)
