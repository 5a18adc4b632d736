"""ryu_vmm.compat in the process it is for: each test starts a real ryu-manager with a small application."""

from __future__ import annotations

import base64
import os
import re
import resource
import signal
import socket
import struct
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from topologies.ports import free_port

if TYPE_CHECKING:
    from collections.abc import Callable

    Start = Callable[..., Any]

NOISE = re.compile(r"Traceback|[Dd]eprecat|Warning|RLock|Exception ignored|uncaught exception")
HELLO = struct.pack("!BBHI", 4, 0, 8, 7)


def get(port: int, path: str) -> str:
    with socket.create_connection(("127.0.0.1", port), timeout=60) as s:
        s.sendall(f"GET {path} HTTP/1.0\r\n\r\n".encode())
        return s.makefile("rb").read().decode()


def receive(sock: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        part = sock.recv(size - len(data))
        assert part, f"closed after {len(data)} of {size} bytes"
        data += part
    return data


def greet(sock: socket.socket) -> None:
    """An OpenFlow 1.3 HELLO either way."""
    sock.sendall(HELLO)
    assert receive(sock, 8)[1] == 0  # OFPT_HELLO


def hung_up(sock: socket.socket) -> bool:
    """Whether the other end closes, in whatever way, without having said anything."""
    try:
        return sock.recv(1) == b""
    except TimeoutError:
        return False
    except OSError:  # reset, or refused by TLS, which under TLS 1.3 arrives with the first read
        return True


# ------------------------------------------------------------------------------------------ start and end


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_serves_without_noise_and_ends_cleanly(ryu_manager: Start, toy: str, number: signal.Signals) -> None:
    manager = ryu_manager(toy)
    manager.wait_for("wsgi starting up")
    assert get(manager.rest, "/hello").endswith("\r\n\r\nhello")
    with manager.connect(manager.ofp) as switch:
        greet(switch)
    assert manager.end(number) == 0
    lines = manager.text.splitlines()
    assert lines.index("toy: stopped") < lines.index("toy: closed")
    assert f"{number.name}: closing all applications" in lines
    assert not NOISE.search(manager.text)


def test_a_signal_while_starting_closes_what_was_started(ryu_manager: Start, toy: str) -> None:
    with open(toy, "a") as file:
        file.write(
            "\n    def start(self):\n"
            "        self.logger.info('toy: starting')\n"
            "        from ryu.lib import hub\n"
            "        hub.sleep(3600)\n"
        )
    manager = ryu_manager(toy)
    manager.wait_for("toy: starting")
    assert manager.end() == 0
    assert "toy: closed" in manager.text
    assert not NOISE.search(manager.text)


def test_signals_in_a_row_still_end_it_cleanly(ryu_manager: Start, toy: str, tmp_path: Path) -> None:
    with open(toy, "a") as file:  # it is closing until all signals have been sent
        file.write(
            "        import os\n"
            "        from ryu.lib import hub\n"
            "        while not os.path.exists('all-sent'):\n"
            "            hub.sleep(0.01)\n"
            "        self.logger.info('toy: closed at last')\n"
            "\n\nryu_vmm.compat.CLOSE_DEADLINE = 20.0\n"
        )
    manager = ryu_manager(toy, cwd=tmp_path)
    manager.wait_for("wsgi starting up")
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGTERM):
        manager.process.send_signal(number)
    manager.wait_for("toy: closed")
    for number in (signal.SIGINT, signal.SIGTERM):
        manager.process.send_signal(number)
    (tmp_path / "all-sent").touch()
    assert manager.process.wait(60) == 0
    assert manager.text.count("toy: closed at last") == 1
    assert not NOISE.search(manager.text)


def test_one_that_fails_and_one_that_hangs_do_not_keep_the_third_from_closing(
    ryu_manager: Start, toy: str, tmp_path: Path
) -> None:
    app = (
        "from ryu.base import app_manager\nfrom ryu.lib import hub\n"
        "class {0}(app_manager.RyuApp):\n"
        "    def stop(self):\n        {1}\n"
        "    def close(self):\n        self.logger.info('{0}: closed')\n"
    )
    (tmp_path / "failing.py").write_text(app.format("Failing", "raise ValueError('no stopping me')"))
    (tmp_path / "hanging.py").write_text(app.format("Hanging", "hub.sleep(3600)"))
    before, after = str(tmp_path / "failing.py"), str(tmp_path / "hanging.py")
    for order in ((before, toy, after), (after, before, toy)):
        manager = ryu_manager(*order)
        manager.wait_for("wsgi starting up")
        assert manager.end() == 0
        assert "Failing failed to stop" in manager.text
        assert "no stopping me" in manager.text
        assert "Hanging did not stop within 1 s" in manager.text
        for name in ("Failing: closed", "Hanging: closed", "toy: closed"):
            assert manager.text.count(name) == 1


def test_an_ignored_signal_stays_ignored(ryu_manager: Start, toy: str) -> None:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)  # inherited, as in a shell's background job
    try:
        manager = ryu_manager(toy)
    finally:
        signal.signal(signal.SIGINT, before)
    manager.wait_for("wsgi starting up")
    manager.process.send_signal(signal.SIGINT)
    assert get(manager.rest, "/hello").endswith("hello")
    assert manager.end() == 0
    assert "SIGINT" not in manager.text


def test_help_and_a_missing_application_end_as_ever(ryu_manager: Start) -> None:
    manager = ryu_manager("--help")
    assert manager.process.wait(60) == 0
    assert "--ofp-tcp-listen-port" in manager.text
    manager = ryu_manager("no_such_module_at_all")
    assert manager.process.wait(60) == 1
    assert "ryu-manager: there is no application no_such_module_at_all\n" in manager.text
    assert "Traceback" not in manager.text


# ------------------------------------------------------------------------------------------ listening


def refused(manager: Any, line: str) -> None:
    assert manager.process.wait(60) == 1
    assert line in manager.text.splitlines()
    assert not NOISE.search(manager.text)


def test_a_second_controller_is_refused_either_port(ryu_manager: Start, toy: str) -> None:
    first = ryu_manager(toy)
    first.wait_for("wsgi starting up")
    first.connect(first.ofp).close()
    taken = str(first.ofp)
    refused(
        ryu_manager("--ofp-tcp-listen-port", taken, toy),
        f"port {taken} on 127.0.0.1 is in use, another controller?",
    )
    refused(
        ryu_manager("--ofp-listen-host", "0.0.0.0", "--ofp-tcp-listen-port", taken, toy),
        f"port {taken} on 0.0.0.0 is in use, another controller?",
    )
    taken = str(first.rest)
    refused(
        ryu_manager("--wsapi-port", taken, toy), f"port {taken} on 127.0.0.1 is in use, another controller?"
    )
    with first.connect(first.ofp) as switch:
        greet(switch)
    assert get(first.rest, "/hello").endswith("hello")
    assert first.end() == 0


def test_a_refused_start_closes_its_applications(ryu_manager: Start, toy: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = str(other.getsockname()[1])
        for option in ("--ofp-tcp-listen-port", "--wsapi-port"):
            manager = ryu_manager(option, port, toy)
            refused(manager, f"port {port} on 127.0.0.1 is in use, another controller?")
            assert manager.text.count("toy: closed") == 1


@pytest.mark.parametrize(
    ("options", "line"),
    [
        (("--ofp-listen-host", "192.0.2.1"), "192.0.2.1 port {ofp}: Cannot assign requested address"),
        (("--wsapi-host", "192.0.2.1"), "192.0.2.1 port {rest}: Cannot assign requested address"),
        (("--ofp-listen-host", "2001:db8::1"), "2001:db8::1 port {ofp}: Cannot assign requested address"),
        (("--ofp-tcp-listen-port", "70000"), "127.0.0.1 port 70000: bind(): port must be 0-65535."),
    ],
)
def test_an_address_that_cannot_be(ryu_manager: Start, toy: str, options: tuple[str, ...], line: str) -> None:
    manager = ryu_manager(*options, toy)
    refused(manager, "cannot listen on " + line.format(ofp=manager.ofp, rest=manager.rest))


def test_a_port_is_free_again_at_once(ryu_manager: Start, toy: str) -> None:
    first = ryu_manager(toy)
    with first.connect(first.ofp) as switch:
        greet(switch)
        assert first.end() == 0
    second = ryu_manager("--ofp-tcp-listen-port", str(first.ofp), toy)
    with second.connect(first.ofp) as switch:
        greet(switch)


def test_a_listener_out_of_files_waits_and_goes_on(ryu_manager: Start, toy: str) -> None:
    manager = ryu_manager(toy)
    manager.wait_for("wsgi starting up")
    manager.connect(manager.ofp).close()
    in_use = len(os.listdir(f"/proc/{manager.process.pid}/fd"))
    resource.prlimit(manager.process.pid, resource.RLIMIT_NOFILE, (in_use + 4, in_use + 4))
    crowd = [manager.connect(manager.ofp) for _ in range(10)]
    manager.wait_for("cannot accept a connection, trying on: Too many open files")
    for sock in crowd:
        sock.close()
    with manager.connect(manager.ofp) as switch:
        greet(switch)
    assert not NOISE.search(manager.text)


# ------------------------------------------------------------------------------------------ TLS


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """A certification authority, and a key and certificate of its making for the controller and a switch."""
    folder = tmp_path_factory.mktemp("keys")

    def openssl(*args: str) -> None:
        subprocess.run(["openssl", *args], cwd=folder, check=True, capture_output=True)

    key = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")
    openssl("req", "-x509", *key, "-keyout", "ca.key", "-out", "ca.crt", "-days", "2", "-subj", "/CN=ca")
    for name in ("ctl", "switch"):
        openssl("req", *key, "-keyout", f"{name}.key", "-out", f"{name}.csr", "-subj", f"/CN={name}")
        openssl("x509", "-req", "-in", f"{name}.csr", "-CA", "ca.crt", "-CAkey", "ca.key", "-CAcreateserial",
                "-out", f"{name}.crt", "-days", "2")  # fmt: skip
    return {path.name: str(path) for path in folder.iterdir()}


def tls_options(keys: dict[str, str], port: int) -> list[str]:
    return [
        "--ofp-ssl-listen-port", str(port),
        "--ctl-privkey", keys["ctl.key"], "--ctl-cert", keys["ctl.crt"], "--ca-certs", keys["ca.crt"],
    ]  # fmt: skip


def tls_switch(manager: Any, keys: dict[str, str], certified: bool = True) -> Any:
    import ssl

    context = ssl.create_default_context(cafile=keys["ca.crt"])
    context.check_hostname = False
    if certified:
        context.load_cert_chain(keys["switch.crt"], keys["switch.key"])
    return context.wrap_socket(manager.connect(manager.ofp))


def test_tls_serves_every_switch(ryu_manager: Start, toy: str, keys: dict[str, str]) -> None:
    port = free_port()
    manager = ryu_manager(*tls_options(keys, port), toy)
    manager.ofp = port
    silent = manager.connect(port)  # never starts a handshake, and must keep nobody waiting
    first, second = tls_switch(manager, keys), tls_switch(manager, keys)
    greet(second)
    greet(first)
    first.close()
    third = tls_switch(manager, keys)
    greet(third)
    for switch in (second, third):
        switch.close()

    with manager.connect(port) as stranger:
        stranger.sendall(HELLO)  # plain OpenFlow
        assert hung_up(stranger)
    with tls_switch(manager, keys, certified=False) as stranger:
        assert hung_up(stranger)
    assert hung_up(silent)
    silent.close()
    manager.wait_for("no handshake within 3 s")
    assert len(re.findall(r"^TLS with .* failed: ", manager.text, re.MULTILINE)) == 3
    assert manager.end() == 0
    assert manager.text.count("toy: hello") == 3
    assert not NOISE.search(manager.text)


def test_a_certificate_that_cannot_be_used(
    ryu_manager: Start, toy: str, keys: dict[str, str], tmp_path: Path
) -> None:
    absent = str(tmp_path / "absent.crt")
    options = tls_options(keys | {"ctl.crt": absent}, 1)
    refused(
        ryu_manager(*options, toy),
        f"TLS cannot use {absent}, {keys['ctl.key']}, {keys['ca.crt']}: [Errno 2] No such file or directory",
    )
    manager = ryu_manager(*tls_options(keys | {"ctl.key": keys["switch.key"]}, 1), toy)
    assert manager.process.wait(60) == 1
    assert "KEY_VALUES_MISMATCH" in manager.text
    assert not NOISE.search(manager.text)


# ------------------------------------------------------------------------------------------ loading


def python_path(folder: Path) -> dict[str, str]:
    path = [str(folder), *filter(None, [os.environ.get("PYTHONPATH")])]
    return os.environ | {"PYTHONPATH": os.pathsep.join(path)}


def test_a_package_beside_a_folder_of_its_name(ryu_manager: Start, toy: str, tmp_path: Path) -> None:
    package = tmp_path / "toypackage"
    package.mkdir()
    (package / "__init__.py").write_text(Path(toy).read_text())
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    for cwd in (tmp_path, elsewhere):
        manager = ryu_manager("toypackage", cwd=cwd, env=python_path(tmp_path))
        manager.wait_for("wsgi starting up")
        assert manager.end() == 0
        assert "toy: closed" in manager.text


@pytest.mark.parametrize("name", ["./toy.py", "toy"])
@pytest.mark.usefixtures("toy")
def test_files_and_modules_are_loaded_as_ever(ryu_manager: Start, tmp_path: Path, name: str) -> None:
    manager = ryu_manager(name, cwd=tmp_path, env=python_path(tmp_path))
    manager.wait_for("wsgi starting up")
    assert manager.end() == 0
    assert "toy: closed" in manager.text


def test_a_websocket_talks_and_leaves(ryu_manager: Start, toy: str) -> None:
    manager = ryu_manager(toy)
    with manager.connect(manager.rest) as s:
        key = base64.b64encode(os.urandom(16)).decode()
        s.sendall(
            f"GET /echo HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            f"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\n\r\n".encode()
        )
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            head += receive(s, 1)
        assert head.startswith(b"HTTP/1.1 101 ")
        for text in (b"one", b"two"):
            s.sendall(bytes([0x81, 0x80 | len(text)]) + bytes(4) + text)  # a masked text frame, mask zero
            reply = b"echo " + text
            assert receive(s, 2 + len(reply)) == bytes([0x81, len(reply)]) + reply
        s.sendall(bytes([0x88, 0x82]) + bytes(4) + struct.pack("!H", 1000))  # close, 'normal'
        while s.recv(100):
            pass
    manager.wait_for('"GET /echo')  # the server is done with the request: any complaint is out
    assert get(manager.rest, "/hello").endswith("hello")
    assert manager.end() == 0
    assert not NOISE.search(manager.text)
