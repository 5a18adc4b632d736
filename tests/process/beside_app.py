"""An ordinary Ryu application that runs beside a Switchboard, for test_southbound.py: it logs what it gets to see."""

from __future__ import annotations

from ryu.base import app_manager
from ryu.controller import ofp_event
from ryu.controller.handler import MAIN_DISPATCHER, set_ev_cls
from ryu.ofproto import ofproto_v1_3


class Beside(app_manager.RyuApp):
    OFP_VERSIONS = [ofproto_v1_3.OFP_VERSION]

    @set_ev_cls(ofp_event.EventOFPStateChange, MAIN_DISPATCHER)
    def entered(self, ev):
        self.logger.info("beside: state %s of %016x", ev.state, ev.datapath.id)
        parser = ev.datapath.ofproto_parser
        ev.datapath.send_msg(parser.OFPBarrierRequest(ev.datapath))
        ev.datapath.send_msg(parser.OFPFlowStatsRequest(ev.datapath, table_id=3))

    @set_ev_cls(ofp_event.EventOFPPacketIn, MAIN_DISPATCHER)
    def packet_in(self, ev):
        self.logger.info("beside: packet-in of %d bytes", len(ev.msg.data))

    @set_ev_cls(ofp_event.EventOFPBarrierReply, MAIN_DISPATCHER)
    def barrier_reply(self, ev):
        self.logger.info("beside: barrier")

    @set_ev_cls(ofp_event.EventOFPFlowStatsReply, MAIN_DISPATCHER)
    def flow_stats(self, ev):
        self.logger.info("beside: %d flows", len(ev.msg.body))

    @set_ev_cls(ofp_event.EventOFPPortStateChange, MAIN_DISPATCHER)
    def port(self, ev):
        self.logger.info("beside: port %d, of %s", ev.port_no, sorted(ev.datapath.ports))
