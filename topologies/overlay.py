"""The overlay topology, for `mn` and for Python.

    mn --custom topologies/overlay.py --topo overlay,nves=3,vms=3 --controller remote,ip=127.0.0.1,port=6653
    mn --custom topologies/overlay.py --topo overlay,nves=3,vms=6,vns=2,overlap=1,underlay=ipv6 --controller
    nva

`--topo overlay` takes the parameters of `topologies.topo.OverlayTopo`; `--controller nva` starts the NVA as
well and ends it with the topology. In both cases the topology is registered with the NVA's REST interface. In
the CLI, `move vm1 nve2` moves a VM and `where` says where they are.
"""

from __future__ import annotations

import inspect
import os
import sys

_HERE = inspect.currentframe()
assert _HERE is not None
_ROOT = os.path.dirname(os.path.dirname(os.path.abspath(_HERE.f_code.co_filename)))
if _ROOT not in sys.path:  # `mn --custom` executes this file's text: there is no package around it
    sys.path.insert(0, _ROOT)
if "__file__" not in globals():
    # Executed by `mn`, whose clean-up after any exception ends processes by name: not from here on
    from topologies import harmless

    harmless.disarm()

from topologies import runner  # noqa: E402
from topologies.controller import NVA  # noqa: E402
from topologies.links import TapLink, VethLink  # noqa: E402
from topologies.move import MoveReport, move  # noqa: E402
from topologies.net import OverlayNet  # noqa: E402
from topologies.nve import NVE  # noqa: E402
from topologies.specs import VMSpec, VNSpec  # noqa: E402
from topologies.topo import OverlayTopo  # noqa: E402
from topologies.underlay import Underlay, UnderlayLink  # noqa: E402
from topologies.vm import VM  # noqa: E402

__all__ = [
    "NVA", "NVE", "VM", "MoveReport", "OverlayNet", "OverlayTopo", "TapLink", "Underlay", "UnderlayLink", "VMSpec",
    "VNSpec", "VethLink", "move",
]

# What `mn --custom` reads
topos = {"overlay": OverlayTopo}
switches = {"nve": NVE}
hosts = {"vm": VM}
links = {"tap": TapLink, "veth": VethLink}
controllers = {"nva": NVA}

if "__file__" not in globals():
    # `mn` takes over every name of this file: it builds its net with `Mininet`, talks through `CLI`, and on an error or
    # Ctrl-C calls `cleanup`
    topos = runner.ending_each(topos)
    Mininet = runner.mininet
    CLI = runner.OverlayCLI
    cleanup = harmless.end
