"""Emulated OpenFlow 1.3 switches: an oracle for unit tests, a fabric of a thousand edges for measurements.

``packets``, ``rules`` and ``tables`` are pure: frames to fields, what a switch refuses, and flow tables
that say where a frame comes out. ``switch`` is one switch's side of the protocol as bytes in, bytes out;
``fabric`` is an overlay of many, ``underlay`` what is outside of it, ``farm`` all that in one process on one selector
loop, with faults to order; ``load`` sends packet-ins as fast as they are answered. ``service`` and ``client`` make that
a process of its own. Neither ryu nor eventlet is involved.
"""
