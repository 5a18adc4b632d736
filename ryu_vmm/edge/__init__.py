"""What a host needs to be an edge (NVE): the commands that make one, and what is wrong with one that is there.

    plan      an edge as values, and the commands that make it, in order; no I/O
    host      runs commands on this host, and reads what it has
    reading   what there is: a bridge, its ports, controllers, links and flows, as values
    checking  what is missing or wrong in that, each with the command that mends it; no I/O

Needs neither Ryu nor eventlet, so that `vmm nve setup` and the topologies share it.
"""
