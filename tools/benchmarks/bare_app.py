"""The least that a Ryu application can do with a packet-in: send the same packet-out, already encoded.

An upper bound for applications that take packet-ins as Ryu events. The benchmark compares others with it.
"""

from __future__ import annotations

import struct
from typing import Any

from ryu.base import app_manager
from ryu.controller import ofp_event
from ryu.controller.handler import CONFIG_DISPATCHER, MAIN_DISPATCHER, set_ev_cls
from ryu.ofproto import ofproto_v1_3

# 42 bytes of frame, as long as an ARP reply, out of port 2
_FRAME = bytes.fromhex("0200000000010200000000020806") + bytes(28)
_OUTPUT = struct.pack("!HHIH6x", 0, 16, 2, 0xFFFF)
_ANSWER = struct.pack("!BBHIIIH6x", 4, 13, 24 + 16 + len(_FRAME), 0, 0xFFFFFFFF, 1, 16) + _OUTPUT + _FRAME


class BareApp(app_manager.RyuApp):
    """Has every packet sent to the controller and answers each with a constant."""

    OFP_VERSIONS = [ofproto_v1_3.OFP_VERSION]

    @set_ev_cls(ofp_event.EventOFPSwitchFeatures, CONFIG_DISPATCHER)
    def connected(self, event: Any) -> None:
        """Install the table-miss flow."""
        datapath = event.msg.datapath
        ofp, parser = datapath.ofproto, datapath.ofproto_parser
        actions = [parser.OFPActionOutput(ofp.OFPP_CONTROLLER, ofp.OFPCML_NO_BUFFER)]
        instructions = [parser.OFPInstructionActions(ofp.OFPIT_APPLY_ACTIONS, actions)]
        datapath.send_msg(parser.OFPFlowMod(datapath=datapath, priority=0, instructions=instructions))

    @set_ev_cls(ofp_event.EventOFPPacketIn, MAIN_DISPATCHER)
    def packet_in(self, event: Any) -> None:
        """Answer."""
        event.msg.datapath.send(_ANSWER)
