"""Questions that an NVE answers by itself, so that its guests find each other while the NVA is away.

An ARP request, or a neighbor solicitation, is turned into its answer by the switch and goes back where it came from.
What the answer says is :mod:`.resolution`'s, as it is for questions that the NVA answers itself. Flows answer

* in every network with a gateway: for the gateway's own addresses, and in a layer 3 network for all its subnets;
* in networks that are pushed: for every address that is known, link-local ones included. In a layer 3 network these
  are those outside of its subnets.

All other questions go to the NVA, among them those that no flow can answer or should: duplicate address detection from
the unspecified address, solicitations without the sender's link-layer address, what a guest asks or announces about
addresses that are its own, and what the directory does not know. A guest that another one asks without shouting
(RFC 4861 section 7.3) answers by itself.

The NVA is handed a copy of what is answered: it wants to know whether a guest was ever heard.

Only what came in by a local port is answered: nothing that a tunnel brings goes back into it.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from typing import Any

from .addresses import link_local
from .events import FlowRefused
from .flows import IN_PORT, Action, Copy, Flow, Output, SetField, ToNva, match, set_field
from .limits import question_meter
from .model import Distribution, Interface, Question, Session
from .resolution import answering, holder
from .state import State
from .tables import ADVERTISE, ETH_ARP, ETH_IPV6, HEAD, LOCAL, RESOLVE, Drop, Why, cookie, drop, metered, why_of
from .wire.frames import BROADCAST, NA_OVERRIDE, NA_ROUTER, NA_SOLICITED

#: Destinations of questions to all: ARP's, and the solicited-node groups of neighbor discovery.
_TO_ALL: dict[int, Any] = {4: BROADCAST, 16: (b"\x33\x33\0\0\0\0", b"\xff\xff\0\0\0\0")}
_ARP: dict[str, Any] = {"eth_type": ETH_ARP, "arp_op": 1}
SOLICITATION: dict[str, Any] = {"eth_type": ETH_IPV6, "ip_proto": 58, "icmpv6_type": 135, "icmpv6_code": 0}
_ADVERTISEMENT: dict[str, Any] = {**SOLICITATION, "icmpv6_type": 136}
#: What no flow can answer: duplicate address detection, and what does not say which MAC to answer to.
_UNANSWERABLE: tuple[dict[str, Any], ...] = ({"ipv6_src": 0}, {"nd_sll": 0})
#: The NVA hears that a guest is there (hearing.py), and answers nothing.
_HEARD = ToNva(HEAD)
#: In reg1: it is a router that answers (RFC 4861 section 4.4).
_ROUTER = 1


def to_nva(state: State, nve: str) -> tuple[Action, ...]:
    """What hands a packet to the NVA to be answered, limited for the NVE as a whole: 0 is no port's number."""
    limit = metered(state, nve, question_meter(0)) if state.limits.questions else ()
    return (*limit, ToNva(0xFFFF))


# --- unit ("base",) ---------------------------------------------------------------------------------------------------
def base(session: Session) -> Iterator[Flow]:
    """What every NVE has: questions for the NVA, and the second half of an advertisement."""
    asked, ask = (ToNva(0xFFFF),), cookie(Why.RESOLVE)
    yield Flow(RESOLVE, 100, match(eth_dst=_TO_ALL[4], **_ARP), asked, cookie=ask)
    solicitation = {"eth_dst": _TO_ALL[16], **SOLICITATION}
    yield Flow(RESOLVE, 100, match(**solicitation), asked, cookie=ask)
    yield drop(ADVERTISE, 0, (), Drop.UNKNOWN_DESTINATION)
    if Question.ND not in session.answers:
        return
    for unanswerable in _UNANSWERABLE:
        yield Flow(RESOLVE, 130, match(**solicitation, **unanswerable), asked, cookie=ask)
    # The option's type comes first: only then there is a link-layer address of the target to be written.
    addressed = (Copy("eth_src", "nd_tll"), Copy("ipv6_src", "ipv6_dst"), Copy("nd_target", "ipv6_src"))
    for router, flags in ((0, NA_SOLICITED | NA_OVERRIDE), (_ROUTER, NA_ROUTER | NA_SOLICITED | NA_OVERRIDE)):
        said = (set_field("nd_options_type", 2), set_field("nd_reserved", flags << 24))
        on = match(metadata=LOCAL, reg1=router, **_ADVERTISEMENT)
        yield Flow(ADVERTISE, 10, on, (*said, *addressed, Output(IN_PORT)), cookie=cookie(Why.ADVERTISE))


# --- unit ("vn", vni) -------------------------------------------------------------------------------------------------
def gateway(state: State, nve: str, vni: int) -> Iterator[Flow]:
    """Who answers for a network's gateway, and in a layer 3 network for all its subnets."""
    found = state.gateway(vni)
    if found is None or nve not in state.hosts(vni):
        return
    answers = state.sessions[nve].answers
    if Question.ND in answers:
        for unanswerable in _UNANSWERABLE:
            on = match(metadata=LOCAL, tun_id=vni, eth_dst=found.mac, **SOLICITATION, **unanswerable)
            yield Flow(RESOLVE, 130, on, to_nva(state, nve), cookie=cookie(Why.RESOLVE))
    for address in (found.ipv4, found.ipv6):
        mac = None if address is None else answering(state, vni, address)
        if address is not None and mac is not None and question(address) in answers:
            for to in _asked_at(state, vni, address):
                yield _answer(vni, 120, to, address, None, mac, _ROUTER)
    for subnet in state.networks[vni].subnets if state.is_l3(vni) else ():
        width = len(subnet.prefix)
        mask = ((1 << subnet.length) - 1 << 8 * width - subnet.length).to_bytes(width, "big")
        if question(subnet.prefix) in answers:
            for to in _asked_at(state, vni, subnet.prefix):
                yield _answer(vni, 110, to, subnet.prefix, mask, found.mac, 0)


# --- unit ("answer", id) ----------------------------------------------------------------------------------------------
def interface(state: State, nve: str, key: str) -> Iterator[Flow]:
    """Who answers for the addresses of an interface, those that it shares and holds among them."""
    found = state.interfaces.get(key)
    if found is None or nve not in state.hosts(found.vni):
        return
    network = state.networks[found.vni]
    if network.policy.distribution is Distribution.PULL:
        return
    answers = state.sessions[nve].answers
    subnets = network.subnets if state.is_l3(found.vni) else ()
    held = (row.address for row in state.held_by(key) if len(row.address) != len(found.mac))
    links = map(link_local, state.macs(found))
    for address in dict.fromkeys((*found.ipv4, *found.ipv6, *held, *links)):
        if question(address) not in answers or holder(state, found.vni, address) != key:
            continue
        mac = answering(state, found.vni, address)
        if mac is not None and not any(address in subnet for subnet in subnets):
            for to in _asked_at(state, found.vni, address):
                yield _answer(found.vni, 110, to, address, None, mac, 0)


# --- unit ("port", name) ----------------------------------------------------------------------------------------------
def port(state: State, number: int, speaking: Interface) -> Iterator[Flow]:
    """What a port asks about addresses that it may speak for: never answered by a flow, to its own MAC least of all.

    Its own meter has limited that already: one for all ports would be exhausted by one guest, and no other one's
    announcement be heard.
    """
    links = map(link_local, (speaking.mac, *speaking.shared_macs))
    for address in dict.fromkeys((*speaking.ipv4, *speaking.ipv6, *links)):
        asked: dict[str, Any] = {**_ARP, "arp_tpa": address}
        if question(address) is Question.ND:
            asked = {**SOLICITATION, "nd_target": address}
        for to in _asked_at(state, speaking.vni, address):
            on = match(in_port=number, eth_dst=to, **asked)
            yield Flow(RESOLVE, 130, on, (ToNva(0xFFFF),), cookie=cookie(Why.RESOLVE))


# --- switches that cannot ---------------------------------------------------------------------------------------------
#: Errors that say so, by OpenFlow's ofp_error_type: a bad action, instruction or match. A full table is another matter.
_CANNOT = (2, 3, 4)


def left(answers: tuple[Question, ...], refused: FlowRefused) -> tuple[Question, ...] | None:
    """What a switch that has refused a flow can still answer; None if the flow had nothing to do with that.

    Open vSwitch's datapath in the kernel does not write the options of neighbor discovery.
    """
    why = None if refused.cookie is None or refused.type not in _CANNOT else why_of(refused.cookie)
    lost = None if why is None else {Why.ANSWER: Question.ARP, Why.ADVERTISE: Question.ND}.get(why[0])
    return None if lost is None else tuple(each for each in answers if each is not lost)


# --- parts ------------------------------------------------------------------------------------------------------------
def question(address: bytes) -> Question:
    """How guests ask for an address."""
    return Question.ARP if len(address) == 4 else Question.ND


def _asked_at(state: State, vni: int, address: bytes) -> Iterator[Any]:
    """Destinations of the questions that are the NVE's to answer: to all, and what is asked of the gateway itself."""
    yield _TO_ALL[len(address)]
    found = state.gateway(vni)
    if found is not None and (state.is_l3(vni) or address in (found.ipv4, found.ipv6)):
        yield found.mac


@lru_cache(maxsize=1 << 14)
def _answer(vni: int, priority: int, to: Any, address: bytes, mask: bytes | None, mac: bytes, router: int) -> Flow:
    """The flow that answers a question for an address, or for any under a mask, with a MAC; kept, for all NVEs."""
    wanted: Any = address if mask is None else (address, mask)
    on: dict[str, Any] = {"metadata": LOCAL, "tun_id": vni, "eth_dst": to}
    if len(address) == 16:
        solicited = match(**on, **SOLICITATION, ip_ttl=255, nd_target=wanted)
        by = (set_field("reg1", router),) if router else ()
        turned = (_HEARD, Copy("nd_sll", "eth_dst"), SetField("eth_src", mac), *by, set_field("icmpv6_type", 136))
        return Flow(RESOLVE, priority, solicited, turned, ADVERTISE, cookie=cookie(Why.ADVERTISE, vni))
    asked = match(**on, **_ARP, arp_tpa=wanted)
    spoken: tuple[Action, ...] = (Copy("arp_spa", "arp_tpa"), SetField("arp_spa", address))
    if mask is not None:
        spoken = (Copy("arp_tpa", "reg1"), Copy("arp_spa", "arp_tpa"), Copy("reg1", "arp_spa"))
    link = (Copy("arp_sha", "eth_dst"), SetField("eth_src", mac), Copy("arp_sha", "arp_tha"), SetField("arp_sha", mac))
    answer = (_HEARD, *link, set_field("arp_op", 2), *spoken, Output(IN_PORT))
    return Flow(RESOLVE, priority, asked, answer, cookie=cookie(Why.ANSWER, vni))


__all__ = ["SOLICITATION", "base", "gateway", "interface", "left", "port", "question", "to_nva"]
