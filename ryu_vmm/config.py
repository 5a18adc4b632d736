"""The ``[vmm]`` group of ryu-manager's configuration, and the sample file made from it.

    ryu-manager --config-file vmm.conf ryu_vmm
    python -m ryu_vmm.config > vmm.conf.sample
"""

from __future__ import annotations

import os
import textwrap
from dataclasses import fields
from typing import Any

from oslo_config import cfg

from .work import Settings

GROUP = "vmm"


def default_store() -> str:
    """Where the store is unless told otherwise: below XDG_STATE_HOME, or ~/.local/state."""
    base = os.environ.get("XDG_STATE_HOME") or os.path.expanduser("~/.local/state")
    return os.path.join(base, "ryu_vmm", "vmm.sqlite")


OPTIONS: list[Any] = [
    cfg.StrOpt("store", help="SQLite file that holds the directory and the moves. Default: vmm.sqlite in ryu_vmm "
               "below $XDG_STATE_HOME or ~/.local/state. ':memory:' keeps nothing."),
    cfg.StrOpt("inventory", help="YAML or JSON file of NVEs, networks and VMs to register at start. It is taken whole "
               "or refused whole; what the store knows already keeps its location."),
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
    cfg.FloatOpt("redirect_guard", default=Settings().redirect_guard, min=0,
                 help="Seconds from the source's barrier reply until a redirect counts as in force: Open vSwitch "
                 "acknowledges a flow before its datapath cache has stopped using the one it replaced."),
    cfg.FloatOpt("sample_pause", default=Settings().sample_pause, min=0.05,
                 help="Seconds between corrections of a correspondent NVE that still sends to a move's source."),
    cfg.IntOpt("flap_moves", default=Settings().flap_moves, min=1,
               help="So many unrequested moves of an interface within flap_window freeze it where it is "
               "(RFC 7432 section 15.1)."),
    cfg.FloatOpt("flap_window", default=Settings().flap_window, min=1, help="Seconds; see flap_moves."),
    cfg.IntOpt("hold_packets", default=Settings().hold_packets, min=0,
               help="Packets that wait in the NVA, for each move, until the destination's port is there."),
    cfg.IntOpt("keep_moves", default=Settings().keep_moves, min=1,
               help="Closed moves that are kept with their ledgers."),
    cfg.FloatOpt("reconnect_grace", default=Settings().reconnect_grace, min=0,
                 help="Seconds that a restarted NVA allows its NVEs for coming back, on top of each open move's "
                 "deadline. Open vSwitch tries again after at most 8."),
    cfg.FloatOpt("resync_pause", default=Settings().resync_pause, min=0.1,
                 help="Seconds before an NVE that refused a flow is read back and corrected."),
]  # fmt: skip


def settings(conf: Any) -> Settings:
    """The core's settings from the ``[vmm]`` group of an oslo.config object."""
    group = conf[GROUP]
    return Settings(**{field.name: getattr(group, field.name) for field in fields(Settings)})


def sample() -> str:
    """The commented sample file: every option with its help and default."""
    lines = [
        "# Sample configuration of ryu_vmm, for ryu-manager --config-file. Values shown are the defaults.",
        "",
        "[DEFAULT]",
        "# Where REST listens. Anything but loopback exposes an interface without authentication.",
        "#wsapi_host = 127.0.0.1",
        "#wsapi_port = 8080",
        "# Where Open vSwitch connects to.",
        "#ofp_listen_host = 127.0.0.1",
        "#ofp_tcp_listen_port = 6653",
        "",
        f"[{GROUP}]",
    ]
    for option in OPTIONS:
        lines += [f"# {line}" for line in textwrap.wrap(option.help, 100)]
        least = getattr(option.type, "min", None)
        if least is not None:
            lines.append(f"# (at least {least})")
        lines += [f"#{option.name} = {'' if option.default is None else option.default}", ""]
    return "\n".join(lines)


if __name__ == "__main__":
    print(sample(), end="")
