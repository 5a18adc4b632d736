"""What the machine must have, and ports that nobody else has."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
from collections.abc import Mapping

from topologies.ports import free_port

#: What the topology runs, and the Debian package that has it.
_TOOLS = {
    "ovs-vswitchd": "openvswitch-switch", "ovsdb-server": "openvswitch-switch", "ovs-vsctl": "openvswitch-common",
    "ovs-ofctl": "openvswitch-common", "ovs-appctl": "openvswitch-common", "ovsdb-tool": "openvswitch-common",
    "mnexec": "mininet", "ip": "iproute2", "nsenter": "util-linux", "ethtool": "ethtool", "ping": "iputils-ping",
}
#: And what the story of layer 3 runs besides.
LAYER3 = {"named": "bind9", "tsig-keygen": "bind9", "nft": "nftables", "setpriv": "util-linux"}


class Unfit(Exception):
    """The machine lacks something; the text says what, and what to do."""


def check(more: Mapping[str, str] | None = None) -> None:
    """Raise Unfit unless this is root with everything at hand; `more`: further commands, and their packages."""
    if os.geteuid() != 0:
        raise Unfit("not root: network namespaces and Open vSwitch need it")
    os.environ["PATH"] = f"{os.environ.get('PATH', '')}:/usr/local/sbin:/usr/sbin:/sbin"  # a user's may lack them
    lacking = {tool: package for tool, package in {**_TOOLS, **(more or {})}.items() if shutil.which(tool) is None}
    if lacking:
        packages = " ".join(sorted(set(lacking.values())))
        raise Unfit(f"missing commands: {', '.join(lacking)} (tools/setup installs them; Debian packages: {packages})")


def ovs_version() -> str:
    """Open vSwitch's version, as "3.1.0"; "of unknown version" where it does not say."""
    try:
        words = subprocess.run(["ovs-vswitchd", "--version"], capture_output=True, text=True, check=True, timeout=10)
    except (OSError, subprocess.SubprocessError):
        return "of unknown version"
    return words.stdout.splitlines()[0].split()[-1]


class Port:
    """A TCP port on loopback: the one wished for if it is free, else any other.

    No other demonstration takes it until `release()`, also while nobody listens there yet. A socket bound to it would
    not see to that: before they listen, several may be bound to one port.
    """

    def __init__(self, wish: int) -> None:
        self._claim = socket.socket(socket.AF_UNIX)
        self.number = wish
        while not self._free():
            self.number = free_port()

    def _free(self) -> bool:
        try:
            self._claim.bind(f"\0ryu_vmm demonstration, port {self.number}")  # a name that goes with the process
        except OSError:
            return False
        with socket.socket() as sock:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # connections of an earlier run do not count
            try:
                sock.bind(("127.0.0.1", self.number))
            except OSError:
                self.release()
                self._claim = socket.socket(socket.AF_UNIX)
                return False
        return True

    def release(self) -> None:
        """Give it up. Safe to call twice."""
        self._claim.close()
