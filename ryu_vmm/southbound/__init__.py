"""Where Ryu ends and the NVA begins: connections to switches below Ryu's event queue.

:class:`Switchboard` stands between the NVA and its switches. It has Ryu make a ``VmmDatapath`` for every connection in
place of its own Datapath. Until the handshake is over that behaves as Ryu's: hello, features and ports go through
Ryu's own handlers. From then on it

* reads up to 64 KiB at a time and decodes with :mod:`ryu_vmm.wire`; everything but packets is handled at once. While
  little waits, so are the packets of a read, as one batch whose answers go back in one write; else they wait for their
  turn (:mod:`ryu_vmm.fairness`), and what is too much is dropped and counted;
* never blocks a sender: what is sent waits in a buffer of the connection, and a switch that does not take it is
  disconnected when there is too much of it, whatever the others do;
* keeps the answers to the NVA's own requests, by transaction id. All else still becomes Ryu events for applications
  that observe them, in a queue of its own: a slow application beside delays nobody.

Bytes that make no sense are counted in ``Switchboard.counters`` and skipped; only where message boundaries are lost
is the connection closed. A connection has to be that of its NVE (by its certificate, where there is TLS), to show signs
of life, to take what it is sent and to answer what it is asked. What the sink raises is logged and counted, and the
connection goes on.
"""

from .board import Sink, Switchboard

__all__ = ["Sink", "Switchboard"]
