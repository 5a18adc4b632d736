"""Bytes to values and back, without I/O: OpenFlow 1.3 (``openflow``) and guests' frames (``frames``).

Decoders raise :class:`ryu_vmm.errors.DecodeError`, with the cause it is counted under, and nothing else.
"""
