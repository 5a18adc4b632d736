"""A Ryu application around a Switchboard, for test_southbound.py: it logs every event, answers ARP requests, and
does what frames of EtherType 0x88B6 tell it to, which is one JSON object each.
"""

from __future__ import annotations

import json
import os

from ryu.base import app_manager
from ryu.ofproto import ofproto_v1_3

from ryu_vmm.effects import Program, ReadFlows, ReadMeters, ReadPorts, SendPacket
from ryu_vmm.flows import Flow, FlowChange, Output, match
from ryu_vmm.southbound import Switchboard
from ryu_vmm.wire import frames
from ryu_vmm.wire.openflow import packet_out_prefix

app_manager.require_app("ryu.controller.ofp_handler")

OUR_MAC = b"\x02\0\0\0\0\x01"
COMMAND = b"\x88\xb6"


class Application(app_manager.RyuApp):
    OFP_VERSIONS = [ofproto_v1_3.OFP_VERSION]

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        settings = json.loads(os.environ.get("BOARD", "{}"))
        self.shed_packets = {}
        self.named = settings.pop("named", False)  # datapath 7 is nve7
        self.board = Switchboard(self, **settings)
        self.board.install()

    def close(self):
        self.board.close()
        self.logger.info("counters %s", json.dumps(self.board.counters))

    def event(self, event):
        self.logger.info("event %r", event)

    def admits(self, dpid, names):
        return names is None or not self.named or f"nve{dpid}" in names

    def shed(self, dpid, packets):
        self.shed_packets.update({f"{dpid} {port}": count for port, count in packets.items()})

    def packets(self, dpid, batch):
        out = []
        for packet in batch:
            if packet.frame[12:14] == COMMAND:
                told = json.loads(packet.frame[14:])
                self.obey(dpid, told)
                self.logger.info("obeyed %d %s", dpid, told["do"])
            else:
                asked = frames.parse_arp(packet.frame)
                reply = frames.build_arp_reply(OUR_MAC, asked.tpa, asked.sha, asked.spa)
                out.append(packet_out_prefix(0xFFFFFFFD, (Output(packet.in_port),), len(reply)) + reply)
        self.logger.info("batch %016x %d %s", dpid, len(batch), [packet.in_port for packet in batch[:3]])
        return out

    def obey(self, dpid, told):
        dpid = told.get("dpid", dpid)
        match told["do"]:
            case "program":
                flows = [Flow(0, n % 65536, match_of(n), cookie=told["n"]) for n in range(told["n"])]
                if told.get("impossible"):
                    flows.insert(1, Flow(0, 0, (), (Output(1),) * 5000))
                changes = tuple(FlowChange("add", flow) for flow in flows)
                self.board.execute(Program(dpid, told["generation"], changes))
            case "read":
                self.board.execute(ReadFlows(dpid, told["token"], 0xAB, 0xFF))
            case "meters":
                self.board.execute(ReadMeters(dpid, told["token"]))
            case "ports":
                self.board.execute(ReadPorts(dpid, told["token"], told.get("port")))
            case "send":
                for _ in range(told.get("times", 1)):
                    self.board.execute(SendPacket(dpid, (Output(9),), bytes(told["size"])))
            case "fail":
                raise RuntimeError("told to fail")
            case "counters":
                self.logger.info("counters %s", json.dumps(self.board.counters))


def match_of(n):
    return match(eth_type=0x0800, ipv4_dst=n)
