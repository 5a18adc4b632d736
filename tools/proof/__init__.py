"""What ryu_vmm claims, measured on real switches: the scenarios of `tools/prove`, and of the tests in tests/real.

    authority   a `ryu-manager ryu_vmm` of one's own
    lab         it, and an overlay of real NVEs with VMs, registered and ready
    planned     moves that were asked for: nothing lost, nothing doubled, the ledger agrees with the receivers
    unplanned   moves that were only announced: what is lost, and until when
    streams     TCP connections that must survive
    raw         frames as VMs send and see them, down to the last byte
    isolation   two networks with the same addresses, and a detector for what crosses over
    layer3      networks whose router every NVE is: bytes per packet on the underlay
    tasks       tasks that move and keep their addresses, by host routes and by ILA
    crises      the same, several at once, while the NVA is killed and control channels are cut
    capture     what an underlay carries, every checksum verified; errors: what guests' kernels are told
    report      the figures as tables

Every scenario returns values that say what was found; `problems()` of each says in words what should not be so.
"""
