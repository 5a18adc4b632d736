"""A name server of our own: BIND's `named` on a free port of loopback, with zones that one TSIG key may update.

    with NameServer() as server:
        ... [vmm] dns_servers = {server.address}, dns_zones = example.org, dns_key_file = {server.key_file}
        server.resolve("web.example.org")

It runs from a folder of its own, a copy of the program included: where AppArmor confines /usr/sbin/named, that one may
read nothing there. It is ended by its process id, and by the kernel should we die before.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Sequence
from types import TracebackType

import dns.exception
import dns.flags
import dns.message
import dns.rcode
import dns.rdatatype

from topologies.errors import CommandError, NotReady
from topologies.ports import free_port
from topologies.rundir import wait_until

__all__ = ["NameServer"]

HOST, HOST6 = "127.0.0.1", "::1"
#: Where Debian has its daemons, which a user's PATH may lack.
_SBIN = "/usr/sbin:/sbin"

_CONFIGURATION = """\
options {{
  directory "{folder}";
  pid-file "{folder}/named.pid";
  lock-file none;
  session-keyfile none;
  managed-keys-directory "{folder}";
  listen-on port {port} {{ {host}; }};
  listen-on-v6 port {port} {{ {host6}; }};
  recursion no;
  dnssec-validation no;
  notify no;
  allow-transfer {{ none; }};
}};
controls {{ }};
include "{key_file}";
"""
_ZONE = """\
zone "{zone}" {{
  type primary;
  file "{folder}/{zone}.zone";
  update-policy {{ {policy} }};
}};
"""
_CONTENT = """\
$TTL 5
@ IN SOA ns.{zone}. hostmaster.{zone}. 1 3600 600 86400 5
@ IN NS ns.{zone}.
ns IN A 192.0.2.53
"""


def _program(name: str) -> str:
    found = shutil.which(name, path=f"{os.environ.get('PATH', '')}:{_SBIN}")
    if found is None:
        raise CommandError(f"there is no {name}; tools/setup installs it (Debian package bind9)")
    return found


class NameServer:
    """One `named`, started by :meth:`start` or as a context manager.

    Args:
        zones: those it serves; each has an SOA, an NS and the address of "ns" in it, 192.0.2.53.
        algorithm: of the key, as `tsig-keygen -a` takes it.
        folder: where its files go; default: a folder in /tmp that goes with it.
        key: name of the key.
        records: further records of the first zone, as lines of its file.

    Attributes:
        port: where it listens, TCP and UDP.
        policy: what the key may do, as named.conf's update-policy has it; "{key}" is its name. Taken at the next start.
        key_file: what `tsig-keygen` printed, for its owner alone to read.
    """

    def __init__(
        self,
        zones: Sequence[str] = ("example.org",),
        algorithm: str = "hmac-sha256",
        folder: str | None = None,
        key: str = "nva",
        records: str = "",
    ) -> None:
        self.zones, self.key = tuple(zones), key
        self._own = folder is None
        self.folder = folder or tempfile.mkdtemp(prefix="ryu_vmm-named-")
        self.key_file = f"{self.folder}/{key}.key"
        self.policy = "grant {key} zonesub A AAAA;"
        self.port = 0
        self._process: subprocess.Popen[bytes] | None = None
        statement = subprocess.run(
            [_program("tsig-keygen"), "-a", algorithm, key], check=True, capture_output=True, timeout=30
        ).stdout
        with open(os.open(self.key_file, os.O_CREAT | os.O_WRONLY | os.O_TRUNC, 0o600), "wb") as file:
            file.write(statement)
        for zone in self.zones:
            with open(f"{self.folder}/{zone}.zone", "w", encoding="ascii") as text:
                text.write(_CONTENT.format(zone=zone) + (f"{records}\n" if zone == self.zones[0] else ""))

    # --- life -----------------------------------------------------------------------------------------
    @property
    def address(self) -> str:
        """Host and port, as the option dns_servers takes them."""
        return f"{HOST}:{self.port}"

    @property
    def address6(self) -> str:
        """The same over IPv6."""
        return f"[{HOST6}]:{self.port}"

    @property
    def log(self) -> str:
        """What it has said so far."""
        try:
            with open(f"{self.folder}/named.log", encoding="utf-8", errors="replace") as file:
                return file.read()
        except FileNotFoundError:
            return ""

    def start(self) -> None:
        """Start it, or start it again at the same port and with the zones as it left them; waits until it serves.

        Raises NotReady with the end of its log.
        """
        program = f"{self.folder}/named"
        if not os.path.exists(program):
            shutil.copy(_program("named"), program)
        fixed = self.port != 0
        for attempt in range(5):
            if not fixed:
                self.port = free_port()
            self._configure()
            with open(f"{self.folder}/named.log", "ab") as log:
                self._process = subprocess.Popen(
                    ["setpriv", "--pdeathsig", "TERM", program, "-g", "-n", "1", "-c", f"{self.folder}/named.conf"],
                    stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                )  # fmt: skip
            try:
                wait_until(self._serves, 20, "the name server", 0.02)
                return
            except NotReady as exc:
                self.stop()
                if fixed or attempt == 4:
                    raise NotReady(f"{exc}:\n{self.log[-2000:]}") from None

    def _configure(self) -> None:
        with open(f"{self.folder}/named.conf", "w", encoding="utf-8") as file:
            values = {"folder": self.folder, "port": self.port, "host": HOST, "host6": HOST6, "key_file": self.key_file}
            file.write(_CONFIGURATION.format(**values))
            for zone in self.zones:
                policy = self.policy.format(key=self.key)
                file.write(_ZONE.format(zone=zone, folder=self.folder, policy=policy))

    def _serves(self) -> bool:
        assert self._process is not None
        if self._process.poll() is not None:
            raise NotReady(f"named ended with {self._process.returncode}")
        try:
            # Somebody else's server on this port would not be authoritative for all of our zones.
            return all(self._ask(zone, dns.rdatatype.SOA, 0.5).flags & dns.flags.AA for zone in self.zones)
        except (OSError, dns.exception.DNSException):
            return False

    def stop(self) -> None:
        """End it by SIGTERM: it brings its zones to the disk first."""
        if self._process is not None:
            self.resume()
            self._process.terminate()
            try:
                self._process.wait(10)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
            self._process = None

    def kill(self) -> None:
        """End it by SIGKILL: what it has confirmed is in the zones' journals."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def pause(self) -> None:
        """Let it answer nothing: its kernel still takes connections for it."""
        if self._process is not None:
            self._process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Let it go on; what has come in meanwhile is worked off."""
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(signal.SIGCONT)

    def close(self) -> None:
        """End it and remove its folder, if that is its own."""
        self.stop()
        if self._own:
            shutil.rmtree(self.folder, ignore_errors=True)

    def __enter__(self) -> NameServer:
        try:
            self.start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    # --- asking ---------------------------------------------------------------------------------------
    def _ask(self, name: str, kind: dns.rdatatype.RdataType, timeout: float) -> dns.message.Message:
        """By TCP, and not by dns.query, which eventlet replaces in a process that has imported it."""
        question = dns.message.make_query(name, kind)
        wire = question.to_wire()
        with socket.create_connection((HOST, self.port), timeout) as sock, sock.makefile("rb") as stream:
            sock.sendall(len(wire).to_bytes(2, "big") + wire)
            answer = dns.message.from_wire(stream.read(int.from_bytes(stream.read(2), "big")))
        if not question.is_response(answer):
            raise NotReady(f"{name}: an answer to something else")
        return answer

    def records(self, name: str, kind: str = "A", timeout: float = 5.0) -> tuple[str, ...]:
        """The records of a kind that a name has, as text, sorted; none if there is no such name.

        Raises NotReady: an answer that says neither; OSError: none in time; DNSException: none that can be read.
        """
        answer = self._ask(name, dns.rdatatype.from_text(kind), timeout)
        if answer.rcode() not in (dns.rcode.NOERROR, dns.rcode.NXDOMAIN):
            raise NotReady(f"{name}: {dns.rcode.to_text(answer.rcode())}")
        return tuple(sorted(record.to_text() for rrset in answer.answer for record in rrset))

    def ttl(self, name: str, kind: str = "A", timeout: float = 5.0) -> int:
        """Seconds for which resolvers may keep the records of a kind that a name has. IndexError: there are none."""
        return int(self._ask(name, dns.rdatatype.from_text(kind), timeout).answer[0].ttl)

    def resolve(self, name: str, timeout: float = 5.0) -> tuple[str, ...]:
        """The addresses that a name stands for, IPv4 before IPv6, each sorted as text."""
        return self.records(name, "A", timeout) + self.records(name, "AAAA", timeout)

    def wait_for(self, name: str, *addresses: str, timeout: float = 20.0) -> float:
        """Wait until a name stands for exactly these addresses; returns the Unix time of the answer that says so.

        Raises NotReady.
        """
        wanted = tuple(sorted(a for a in addresses if ":" not in a)) + tuple(sorted(a for a in addresses if ":" in a))
        deadline = time.monotonic() + timeout
        found: tuple[str, ...] | str = ()
        while time.monotonic() < deadline:
            try:
                found = self.resolve(name, 1.0)
            except (OSError, NotReady, dns.exception.DNSException) as exc:
                found = str(exc)
            if found == wanted:
                return time.time()
            time.sleep(0.001)
        raise NotReady(f"{name} is {found}, not {wanted}, after {timeout:g} s")
