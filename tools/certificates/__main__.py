"""Command line of ``tools/ca``."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from .authority import CLIENT, SERVER, Authority, Unusable

HOSTS = ("localhost", "127.0.0.1", "::1")


def main(arguments: list[str] | None = None) -> int:
    """Make what is missing; 1 if something cannot be made."""
    parser = argparse.ArgumentParser(prog="tools/ca", description="Makes certificates.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--nve", action="append", default=[], metavar="NAME")
    parser.add_argument("--client", action="append", default=[], metavar="NAME")
    parser.add_argument("--agent", action="append", default=[], metavar="NVE")
    parser.add_argument("--host", action="append", default=[], metavar="NAME-OR-ADDRESS")
    parser.add_argument("--days", type=int, default=365, metavar="N")
    parser.add_argument("--quiet", action="store_true")
    given = parser.parse_args(arguments)
    if given.days < 1:
        parser.error("--days: at least 1")
    if given.agent and (given.nve or given.client or given.host or (given.folder / "controller.crt").exists()):
        # Agents are servers and clients to each other. What one could show to a switch would pass for the NVA's.
        parser.error("--agent: agents have an authority of their own, in another folder")
    if both := set(given.nve) & {*given.client, "controller", "rest"}:
        # One authority vouches for both kinds of client, so a name must say which it is.
        parser.error(f"{', '.join(sorted(both))}: an NVE needs a name that nobody else has")
    try:
        authority = Authority(given.folder, given.days)
        for name in given.agent:
            authority.issue(f"agent-{name}", name, SERVER, CLIENT)
        if not given.agent:
            authority.issue("controller", "controller", SERVER)
            authority.issue("rest", "rest", SERVER, hosts=tuple(dict.fromkeys((*HOSTS, *given.host))))
        for name in given.nve:
            authority.issue(f"nve-{name}", name, CLIENT)
        for name in given.client:
            authority.issue(f"client-{name}", name, CLIENT)
    except (Unusable, OSError) as error:
        print(f"ca: {error}", file=sys.stderr)
        return 1
    if not given.quiet:
        made = [name for name in authority.made if name.endswith(".crt")]
        print(f"ca: made {', '.join(made)}" if made else "ca: nothing to do")
        folder = given.folder.resolve()
        print(_agent_hints(folder, given.agent) if given.agent else _hints(folder, given.nve))
    return 0


def _agent_hints(folder: Path, nves: list[str]) -> str:
    lines = [""]
    for name in nves:
        files = f"cert: {folder}/agent-{name}.crt, key: {folder}/agent-{name}.key, ca: {folder}/ca.crt"
        lines += [f"The agent of {name} (vmm-agent serve --config):", f"  tls: {{{files}}}"]
    return "\n".join(lines)


def _hints(folder: Path, nves: list[str]) -> str:
    lines = [
        "",
        "The NVA (vmm.conf):",
        "  [DEFAULT]",
        f"  ctl_privkey = {folder}/controller.key",
        f"  ctl_cert = {folder}/controller.crt",
        f"  ca_certs = {folder}/ca.crt",
    ]
    for name in nves or ["NAME"]:
        files = [f"{folder}/nve-{name}.key", f"{folder}/nve-{name}.crt", f"{folder}/ca.crt"]
        lines += [
            f"NVE {name}:",
            f"  vmm nve setup {name} --ipv4 UNDERLAY-ADDRESS --controller ssl:ADDRESS-OF-THE-NVA:6653 \\",
            f"    --private-key {files[0]} --certificate {files[1]} --authority {files[2]}",
        ]
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
