"""The ``[vmm]`` group of ryu-manager's configuration, and the sample file made from it.

    ryu-manager --config-file vmm.conf ryu_vmm
    python -m ryu_vmm.config > vmm.conf.sample
"""

from __future__ import annotations

import ipaddress
import os
import socket
import textwrap
from dataclasses import fields
from typing import Any

from oslo_config import cfg

from .audit import KEEP
from .dnsupdate import Updater, parse_server
from .errors import InvalidInput
from .hostnames import parse_hostname
from .limits import PROBES
from .naming import Publisher
from .tsig import KeyFile
from .work import Settings

GROUP = "vmm"
#: IANA's port for OpenFlow, with TLS and without.
OFP_PORT = 6653


def default_store() -> str:
    """Where the store is unless told otherwise: below XDG_STATE_HOME, or ~/.local/state."""
    base = os.environ.get("XDG_STATE_HOME") or os.path.expanduser("~/.local/state")
    return os.path.join(base, "ryu_vmm", "vmm.sqlite")


OPTIONS: list[Any] = [
    cfg.StrOpt("store", help="SQLite file that holds the directory and the moves. Default: vmm.sqlite in ryu_vmm "
               "below $XDG_STATE_HOME or ~/.local/state. ':memory:' keeps nothing."),
    cfg.StrOpt("inventory", help="YAML or JSON file of NVEs, networks and VMs, read at every start. Entries that say "
               "what they said the last time undo nothing of what has happened since; what conflicts with it is "
               "reported (GET /v1/health), and all else is taken."),
    cfg.StrOpt("credentials", help="JSON file that says who may use REST, written by 'vmm credentials'; it is read "
               "again whenever it changes. Without it REST serves loopback only, and whoever asks there is admin."),
    cfg.StrOpt("rest_cert", help="PEM file with the certificate of REST, and its chain: REST is served over TLS."),
    cfg.StrOpt("rest_key", help="PEM file with the certificate's key; default: it is in rest_cert."),
    cfg.StrOpt("rest_client_ca", help="PEM file with the authorities whose client certificates are believed."),
    cfg.BoolOpt("rest_client_required", default=False,
                help="Refuse clients without a certificate during the TLS handshake. Tokens count all the same."),
    cfg.BoolOpt("rest_plaintext", default=False,
                help="Serve REST beyond loopback without TLS: tokens can then be read on their way."),
    cfg.ListOpt("dns_servers", default=[],
                help="Name servers that are told of addresses of interfaces with a name (RFC 2136, over TCP), by IP "
                "address and port if it is not 53: 192.0.2.1, 192.0.2.1:5353, [2001:db8::1]:5353. They are tried in "
                "turn."),
    cfg.ListOpt("dns_zones", default=[],
                help="Zones that these may be told of; a name in none of them is not published."),
    cfg.StrOpt("dns_key_file",
               help="File with the key (TSIG) that updates are signed with, as tsig-keygen prints it: hmac-sha256, "
               "-sha384 or -sha512. It may not be open to all users, and is read again whenever it changes."),
    cfg.IntOpt("dns_ttl", default=5, min=0, max=86400,
               help="Seconds for which resolvers may go on giving out an old address."),
    cfg.FloatOpt("dns_timeout", default=2.0, min=0.05,
                 help="Seconds for a name server to answer an update, before the next one is tried."),
    cfg.IntOpt("audit_keep", default=KEEP, min=1,
               help="Entries kept of the audit: so many changes, and so many refused attempts."),
    cfg.FloatOpt("prepare_deadline", default=Settings().prepare_deadline, min=0.1,
                 help="Seconds from a move's request until it must be prepared (paths proven), else it fails."),
    cfg.FloatOpt("prepared_deadline", default=Settings().prepared_deadline, min=1,
                 help="Seconds a prepared move may wait for its redirect or the VM's announcement."),
    cfg.FloatOpt("redirect_deadline", default=Settings().redirect_deadline, min=0.1,
                 help="Seconds from the redirect until the VM must be heard at its destination, else the source "
                 "serves again. Longer than the longest pause of a migration."),
    cfg.FloatOpt("steer_deadline", default=Settings().steer_deadline, min=0.1,
                 help="Seconds for all correspondent NVEs to acknowledge a new location; who has not is named in the "
                 "move's record."),
    cfg.FloatOpt("drain_cap", default=Settings().drain_cap, min=1,
                 help="Seconds after which a redirect is removed even if packets still come."),
    cfg.FloatOpt("quiet_time", default=Settings().quiet_time, min=1,
                 help="Seconds without a redirected packet after which a redirect is removed. Open vSwitch refreshes "
                 "flow counters about twice a second; less than 1 would call a busy redirect quiet."),
    cfg.FloatOpt("poll_interval", default=Settings().poll_interval, min=0.02,
                 help="Seconds between readings of a draining move's counters."),
    cfg.FloatOpt("probe_interval", default=Settings().probe_interval, min=0.005,
                 help="Seconds before an unanswered path probe is repeated."),
    cfg.IntOpt("tunnel_rate", default=Settings().tunnel_rate, min=0, max=PROBES // 2,
               help="Probes per second, of all NVEs together, that prove the tunnels between NVEs that share a "
               "network, pair after pair. A path that answers none is told by event, metric and health. 0 sends none."),
    cfg.FloatOpt("tunnel_interval", default=Settings().tunnel_interval, min=0.1,
                 help="Seconds between two probes of a path, where tunnel_rate allows that; else it takes longer until "
                 "each path had its turn."),
    cfg.FloatOpt("ready_guard", default=0.02, min=0,
                 help="Seconds from the destination's barrier reply until the source is pointed at it, so that no "
                 "broadcast of that moment finds neither of them; see redirect_guard."),
    cfg.FloatOpt("redirect_guard", default=Settings().redirect_guard, min=0,
                 help="Seconds from the source's barrier reply until a redirect counts as in force: Open vSwitch "
                 "acknowledges a flow before its datapath cache has stopped using the one it replaced."),
    cfg.FloatOpt("sample_pause", default=Settings().sample_pause, min=0.05,
                 help="Seconds between corrections of a correspondent NVE that still sends to a move's source."),
    cfg.IntOpt("flap_moves", default=Settings().flap_moves, min=1,
               help="So many unrequested moves of an interface within flap_window freeze it where it is "
               "(RFC 7432 section 15.1)."),
    cfg.FloatOpt("flap_window", default=Settings().flap_window, min=1, help="Seconds; see flap_moves."),
    cfg.FloatOpt("freeze_time", default=Settings().freeze_time, min=0,
                 help="Seconds that a flapping interface stays frozen; 0 is until somebody thaws it. A requested move "
                 "and POST /v1/vms/NAME/thaw thaw it at once."),
    cfg.IntOpt("question_rate", default=Settings().question_rate, min=0,
               help="Packets per second (and at once) of ARP, neighbor discovery and RARP that a port may send, "
               "limited by a meter on the switch; more are dropped there. 0 is no limit."),
    cfg.IntOpt("forgery_rate", default=Settings().forgery_rate, min=0,
               help="Forged ARP, neighbor discovery and RARP packets per second that a port's switch hands over to be "
               "reported, limited by a meter; all are dropped and counted. 0 hands none over."),
    cfg.FloatOpt("offender_rate", default=Settings().offender_rate, min=0,
                 help="Forged packets per second, over ten seconds, from which on a port is reported as an offender "
                 "and what it forges is only counted, on the switch, for silence_time. 0 silences at the first."),
    cfg.FloatOpt("silence_time", default=Settings().silence_time, min=1, help="Seconds; see offender_rate."),
    cfg.FloatOpt("report_interval", default=Settings().report_interval, min=0.1,
                 help="Seconds. The first refusal of a kind at a port is reported at once, those after it as a number "
                 "for each interval."),
    cfg.IntOpt("hold_packets", default=Settings().hold_packets, min=0,
               help="Packets that wait in the NVA, for each move, until the destination's port is there."),
    cfg.IntOpt("keep_moves", default=Settings().keep_moves, min=1,
               help="Closed moves that are kept with their ledgers."),
    cfg.FloatOpt("reconnect_grace", default=Settings().reconnect_grace, min=0,
                 help="Seconds that a restarted NVA allows its NVEs for coming back, on top of each open move's "
                 "deadline. Open vSwitch tries again after at most 8."),
    cfg.FloatOpt("resync_pause", default=Settings().resync_pause, min=0.1,
                 help="Seconds before an NVE that refused a flow is read back and what it refused is tried again; each "
                 "time that it refuses again twice as long, at most 60."),
]  # fmt: skip


#: Options of the switchboard: name there, type, default, least value, help.
_SWITCHBOARD: list[Any] = [
    cfg.FloatOpt("echo_interval", default=5.0, min=0.05,
                 help="Seconds between looks at whether a switch shows any sign of life; while it does not, it is sent "
                 "an echo request each time. A dead one is noticed within (echo_misses + 2) * echo_interval seconds."),
    cfg.IntOpt("echo_misses", default=3, min=1,
               help="Looks in a row without a sign of life after which a switch's connection is closed."),
    cfg.FloatOpt("takeover_within", default=1.0, min=0.05,
                 help="Seconds that a switch's connection has to answer an echo request when another one claims the "
                 "same datapath id. It is replaced only if it does not."),
    cfg.FloatOpt("handshake_within", default=20.0, min=0.1,
                 help="Seconds from the connection of a switch until it must have told its features and ports."),
    cfg.IntOpt("handshakes", default=4096, min=1,
               help="Connections that may be on their way there; one more ends the one that has been for longest."),
    cfg.IntOpt("send_cap", default=64 << 20, min=1 << 16,
               help="Bytes that may wait for a switch to take them, before its connection is closed."),
    cfg.FloatOpt("stuck_after", default=20.0, min=0.1,
                 help="Seconds for which a switch may take none of the bytes that wait for it, before its connection "
                 "is closed."),
    cfg.FloatOpt("answer_within", default=120.0, min=0.1,
                 help="Seconds for which a switch that is alive may leave barriers and questions about its flows "
                 "without any answer, before its connection is closed."),
    cfg.IntOpt("port_backlog", default=1 << 19, min=1 << 12,
               help="Bytes of packets that one port has handed over and that may wait for the NVA, some 200 for each "
               "packet included; further ones are dropped and counted by NVE and port. A queue never grows beyond "
               "what its NVE has left."),
    cfg.IntOpt("move_backlog", default=1 << 22, min=1 << 12, help="The same for packets that are about one move."),
    cfg.IntOpt("nve_backlog", default=1 << 24, min=1 << 13,
               help="The same for all ports and moves of one NVE, which never takes more than what all have left."),
    cfg.IntOpt("backlog", default=1 << 27, min=1 << 14, help="The same for all NVEs."),
]  # fmt: skip
OPTIONS += _SWITCHBOARD


def switchboard(conf: Any) -> dict[str, Any]:
    """Arguments for southbound.Switchboard from the ``[vmm]`` group of an oslo.config object."""
    return {option.name: getattr(conf[GROUP], option.name) for option in _SWITCHBOARD}


def openflow_tls(conf: Any) -> bool:
    """Whether switches connect over TLS, by Ryu's own options; settles the port.

    Raises:
        InvalidInput: some of the options are there and others are missing. Ryu would serve without TLS then, or
            without asking for certificates.
    """
    given = {name: getattr(conf, name) for name in ("ctl_privkey", "ctl_cert", "ca_certs")}
    missing = [name for name, value in given.items() if not value]
    if len(missing) == len(given):
        return False
    if missing:
        raise InvalidInput(f"OpenFlow over TLS needs {', '.join(given)}: {' and '.join(missing)} missing")
    if not conf.ofp_ssl_listen_port:
        conf.set_override("ofp_ssl_listen_port", OFP_PORT)
    return True


def publisher(conf: Any) -> Publisher:
    """What publishes names, by the ``[vmm]`` group of an oslo.config object.

    Raises:
        InvalidInput: an option is not what it should be, or of no use without another one.
        KeyUnusable: the key's file cannot be used.
    """
    group = conf[GROUP]
    if not group.dns_servers:
        for name in ("dns_zones", "dns_key_file"):
            if getattr(group, name):
                raise InvalidInput(f"{name} is of no use without dns_servers", field=name)
        return Publisher(None, (), ())
    for name in ("dns_zones", "dns_key_file"):
        if not getattr(group, name):
            raise InvalidInput(f"dns_servers needs {name}", field=name)
    servers, zones = [], []
    for given in group.dns_servers:
        try:
            servers.append(parse_server(given))
        except InvalidInput as e:
            raise InvalidInput(f"dns_servers: {e.message}", field="dns_servers") from None
    for given in group.dns_zones:
        try:
            zones.append(parse_hostname(given))
        except InvalidInput as e:
            raise InvalidInput(f"dns_zones: {e.message}", field="dns_zones") from None
    key = KeyFile(group.dns_key_file)
    return Publisher(Updater(key.current, group.dns_ttl, group.dns_timeout), servers, zones)


def settings(conf: Any) -> Settings:
    """The core's settings from the ``[vmm]`` group of an oslo.config object."""
    group = conf[GROUP]
    return Settings(**{field.name: getattr(group, field.name) for field in fields(Settings)})


def exposure(host: str, group: Any) -> str | None:
    """Why REST must not be served on ``host`` with these options of ``[vmm]``; None: it may be."""
    if group.rest_cert is None:
        for name in ("rest_key", "rest_client_ca"):
            if getattr(group, name) is not None:
                return f"{name} is of no use without rest_cert"
    if group.rest_client_required and group.rest_client_ca is None:
        return "rest_client_required needs rest_client_ca"
    if is_local(host):
        return None
    where = f"wsapi_host = {host or '(all addresses)'}"
    if group.credentials is None:
        return f"{where} would serve REST to the network without asking who is there; set credentials (and rest_cert)"
    if group.rest_cert is None and not group.rest_plaintext:
        return f"{where} would let tokens be read on their way; set rest_cert (or rest_plaintext if others encrypt)"
    return None


def is_local(host: str) -> bool:
    """Whether only this machine can connect to a host name, an address, or the path of a Unix socket."""
    if os.path.isdir(os.path.dirname(host)):
        return True
    try:
        found = {info[4][0] for info in socket.getaddrinfo(host or "0.0.0.0", None, type=socket.SOCK_STREAM)}
    except (OSError, UnicodeError):
        return False
    addresses = [ipaddress.ip_address(str(address).partition("%")[0]) for address in found]
    return bool(addresses) and all(_loopback(address) for address in addresses)


def _loopback(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
    mapped = getattr(address, "ipv4_mapped", None)
    return (mapped or address).is_loopback


def sample() -> str:
    """The commented sample file: every option with its help and default."""
    lines = [
        "# Sample configuration of ryu_vmm, for ryu-manager --config-file. Values shown are the defaults.",
        "",
        "[DEFAULT]",
        "# Log lines are JSON objects; log_file, log_dir, use_syslog and so on are Ryu's, see ryu-manager --help.",
        "#log_json = false",
        "# Where REST listens. Anything but loopback needs credentials and TLS; see [vmm] below.",
        "#wsapi_host = 127.0.0.1",
        "#wsapi_port = 8080",
        "# Where Open vSwitch connects to.",
        "#ofp_listen_host = 127.0.0.1",
        "#ofp_tcp_listen_port = 6653",
        "# OpenFlow over TLS 1.2 or later, in place of that without: key and certificate of the NVA, and the",
        "# authority (PEM) whose certificates switches must show. A switch is the NVE of its certificate: the DNS name",
        "# in it, else the common name, is the NVE's name, or its field 'certificate'. tools/ca makes all of them.",
        "#ctl_privkey =",
        "#ctl_cert =",
        "#ca_certs =",
        "#ofp_ssl_listen_port = 6653",
        "",
        f"[{GROUP}]",
    ]
    for option in OPTIONS:
        lines += [f"# {line}" for line in textwrap.wrap(option.help, 100)]
        least = getattr(option.type, "min", None)
        if least is not None:
            lines.append(f"# (at least {least})")
        default = ", ".join(option.default) if isinstance(option.default, list) else option.default
        lines += [f"#{option.name} = {'' if default is None else default}", ""]
    return "\n".join(lines)


if __name__ == "__main__":
    print(sample(), end="")
