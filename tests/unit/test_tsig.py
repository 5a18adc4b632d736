"""Key files: what tsig-keygen prints is read, everything else is refused in words that repeat no secret."""

from __future__ import annotations

import base64
import logging
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ryu_vmm.tsig import ALGORITHMS, Key, KeyFile, KeyUnusable, parse_key, read_key

BYTES = bytes(range(32))
SECRET = base64.b64encode(BYTES).decode()
STATEMENT = f'key "nva" {{\n\talgorithm hmac-sha256;\n\tsecret "{SECRET}";\n}};\n'


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_what_tsig_keygen_prints(algorithm: str) -> None:
    key = parse_key(STATEMENT.replace("hmac-sha256", algorithm))
    assert key == Key("nva", algorithm, BYTES)
    assert key.for_dnspython().secret == BYTES


@pytest.mark.parametrize(
    "text",
    [
        f"key nva {{ secret {SECRET}; algorithm HMAC-SHA256; }};",
        f'# by hand\nKEY nva. {{ algorithm "hmac-sha256"; // strong\n/* the\nsecret */ secret "{SECRET}"; }} ; # end',
        f"key NVA{{algorithm hmac-sha256;secret {SECRET};}};",
    ],
)
def test_the_grammar_of_named_conf(text: str) -> None:
    assert parse_key(text) == Key("nva", "hmac-sha256", BYTES)


def test_a_secret_with_slashes_is_no_comment() -> None:
    secret = base64.b64encode(b"\xff" * 32).decode()
    assert "//" in secret
    assert parse_key(f"key nva {{ algorithm hmac-sha256; secret \"{secret}\"; }};").secret == b"\xff" * 32


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "line 1: it ends where key should be"),
        ("zone example.org {};", "line 1: here should be key"),
        ('key { algorithm hmac-sha256; };', "line 1: the key's name is missing"),
        (STATEMENT.replace("hmac-sha256", "hmac-md5"), "none of hmac-sha256"),
        (STATEMENT.replace("hmac-sha256", "hmac-sha1"), "none of hmac-sha256"),
        (STATEMENT.replace("algorithm", "algorythm"), "line 2: here should be algorithm, secret or }"),
        (STATEMENT.replace("\talgorithm hmac-sha256;\n", ""), "no algorithm"),
        (STATEMENT.replace(f'\tsecret "{SECRET}";\n', ""), "no secret"),
        (STATEMENT.replace("\tsecret", "\talgorithm hmac-sha512;\n\tsecret"), "line 3: algorithm a second time"),
        (STATEMENT.replace(SECRET, SECRET[:-2] + "!!"), "not base64"),
        (STATEMENT.replace(SECRET, "AAAA"), "24 bits; it takes 128"),
        (STATEMENT.replace("};", "}"), "it ends where ; should be"),
        (STATEMENT.replace(f'{SECRET}";', SECRET), "line 3: a quotation mark"),
        (STATEMENT + STATEMENT.replace("nva", "other"), "line 5: something follows the key statement"),
        (STATEMENT + "/* no end", "line 5: a comment without its end"),
        (STATEMENT.replace('"nva"', '"' + "a" * 64 + '"'), "not a domain name"),
        (STATEMENT.replace('"nva"', '"."'), "no name"),
    ],
)
def test_what_is_refused(text: str, why: str) -> None:
    with pytest.raises(KeyUnusable) as caught:
        parse_key(text)
    assert why in caught.value.message


@given(st.text(max_size=40), st.integers(0, len(STATEMENT)), st.integers(0, 12))
def test_no_text_makes_it_fail_otherwise_and_no_error_repeats_a_secret(junk: str, at: int, cut: int) -> None:
    shown = ""
    try:
        shown = repr(parse_key(STATEMENT[:at] + junk + STATEMENT[at + cut :]))
    except KeyUnusable as e:
        shown = str(e)
    assert SECRET[:8] not in shown and repr(BYTES)[:20] not in shown


def test_a_key_shows_no_secret() -> None:
    key = parse_key(STATEMENT)
    assert SECRET not in f"{key!r} {key}" and repr(BYTES) not in f"{key!r} {key}"


def written(folder: Path, text: str = STATEMENT, mode: int = 0o600) -> str:
    path = folder / "nva.key"
    path.write_text(text)
    path.chmod(mode)
    return str(path)


@pytest.mark.parametrize("mode", [0o600, 0o400, 0o640, 0o660])
def test_a_file_of_its_owner_and_group(tmp_path: Path, mode: int) -> None:
    assert read_key(written(tmp_path, mode=mode)).secret == BYTES


@pytest.mark.parametrize("mode", [0o604, 0o644, 0o602, 0o666, 0o601])
def test_a_file_that_is_open_to_all_is_refused(tmp_path: Path, mode: int) -> None:
    with pytest.raises(KeyUnusable, match=f"open to every user \\(mode 0{mode:o}\\)"):
        read_key(written(tmp_path, mode=mode))


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(KeyUnusable, match="No such file"):
        read_key(str(tmp_path / "none"))
    with pytest.raises(KeyUnusable, match="not a regular file"):
        read_key(str(tmp_path))
    os.mkfifo(tmp_path / "pipe", 0o600)  # whoever opens it for reading waits, unless told not to
    with pytest.raises(KeyUnusable, match="not a regular file"):
        read_key(str(tmp_path / "pipe"))
    with pytest.raises(KeyUnusable, match="longer than a key statement"):
        read_key(written(tmp_path, STATEMENT + "#" * 70_000))
    (tmp_path / "nva.key").write_bytes(b"\xff\xfe")
    with pytest.raises(KeyUnusable, match="not text"):
        read_key(str(tmp_path / "nva.key"))
    with pytest.raises(KeyUnusable, match=r"nva.key: line 1: here should be key"):
        read_key(written(tmp_path, "secret\n"))


def test_a_key_is_read_again_when_its_file_changes(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = written(tmp_path)
    file = KeyFile(path)
    assert file.current().name == "nva"
    replaced = tmp_path / "new"
    replaced.write_text(STATEMENT.replace("nva", "other"))
    replaced.chmod(0o600)
    replaced.rename(path)
    assert file.current().name == "other"
    with caplog.at_level(logging.ERROR, "ryu_vmm.names"):
        os.chmod(path, 0o644)
        assert file.current().name == "other"
        assert file.current().name == "other"
    assert [r.getMessage() for r in caplog.records if "open to every user" in r.getMessage()] == [caplog.messages[0]]
    assert SECRET not in caplog.text
    os.unlink(path)
    assert file.current().name == "other"
    with pytest.raises(KeyUnusable):
        KeyFile(path)
