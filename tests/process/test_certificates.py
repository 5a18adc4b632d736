"""tools/ca: what it makes can be used, stays, and is made anew when it has to be."""

from __future__ import annotations

import os
import ssl
import stat
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def ca(folder: Path, *arguments: str, fails: bool = False) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [str(ROOT / "tools" / "ca"), str(folder), *arguments], capture_output=True, text=True, timeout=60
    )
    assert (done.returncode != 0) is fails, done.stderr
    return done


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_files_stay_and_further_ones_are_added(tmp_path: Path) -> None:
    folder = tmp_path / "pki"
    told = ca(folder, "--nve", "nve1", "--client", "alice", "--host", "nva.example.org").stdout
    files = f"--private-key {folder}/nve-nve1.key --certificate {folder}/nve-nve1.crt --authority {folder}/ca.crt"
    assert files in told
    before = content(folder)
    assert sorted(before) == sorted(
        f"{name}.{kind}" for name in ("ca", "controller", "rest", "nve-nve1", "client-alice") for kind in ("crt", "key")
    )
    for path in folder.glob("*.key"):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert "nothing to do" in ca(folder, "--nve", "nve1", "--client", "alice", "--host", "nva.example.org").stdout
    assert content(folder) == before
    ca(folder, "--nve", "nve2", "--host", "nva.example.org", "--quiet")
    after = content(folder)
    assert {name: after[name] for name in before} == before
    assert set(after) - set(before) == {"nve-nve2.crt", "nve-nve2.key"}


def test_what_is_no_good_is_made_anew(tmp_path: Path) -> None:
    ca(tmp_path, "--nve", "nve1", "--nve", "nve2", "--nve", "nve3")
    before = content(tmp_path)
    (tmp_path / "nve-nve1.key").write_bytes(before["nve-nve2.key"])
    (tmp_path / "nve-nve2.crt").write_bytes(before["nve-nve3.crt"])
    (tmp_path / "nve-nve3.crt").write_text("")
    assert "made nve-nve1.crt, nve-nve2.crt, nve-nve3.crt" in ca(
        tmp_path, "--nve", "nve1", "--nve", "nve2", "--nve", "nve3"
    ).stdout
    for name in ("nve1", "nve2", "nve3"):
        context = ssl.create_default_context(cafile=str(tmp_path / "ca.crt"))
        context.load_cert_chain(tmp_path / f"nve-{name}.crt", tmp_path / f"nve-{name}.key")  # they belong together
    ca(tmp_path, "--host", "other.example.org", "--quiet")
    assert content(tmp_path)["rest.crt"] != before["rest.crt"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--nve", "a b"), "cannot be in a certificate"),
        (("--nve", "same", "--client", "same"), "a name that nobody else has"),
        (("--nve", "controller"), "a name that nobody else has"),
        (("--days", "0"), "at least 1"),
    ],
)
def test_refusals(tmp_path: Path, arguments: tuple[str, ...], words: str) -> None:
    assert words in ca(tmp_path / "pki", *arguments, fails=True).stderr


def test_half_an_authority_is_not_overwritten(tmp_path: Path) -> None:
    ca(tmp_path)
    kept = (tmp_path / "ca.crt").read_bytes()
    (tmp_path / "ca.key").unlink()
    assert "not both" in ca(tmp_path, fails=True).stderr
    (tmp_path / "ca.key").write_text("nonsense")
    assert "cannot be used" in ca(tmp_path, fails=True).stderr
    assert (tmp_path / "ca.crt").read_bytes() == kept


def test_certificates_of_one_kind_do_not_pass_for_the_other(tmp_path: Path) -> None:
    ca(tmp_path, "--nve", "nve1")

    def verify(file: str, purpose: str) -> bool:
        command = ["openssl", "verify", "-CAfile", "ca.crt", "-purpose", purpose, f"{file}.crt"]
        return subprocess.run(command, cwd=tmp_path, capture_output=True, env=os.environ, check=False).returncode == 0

    assert verify("controller", "sslserver") and not verify("controller", "sslclient")
    assert verify("nve-nve1", "sslclient") and not verify("nve-nve1", "sslserver")
