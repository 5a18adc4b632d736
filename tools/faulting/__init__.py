"""Faults on real switches, with traffic running: the scenarios of `tools/faults`, and of tests/real/test_faults_*.py.

    ground    an overlay with a VM that moves and others that stay, and traffic between them
    staged    a move that is brought to a state and held there, and then carried to its end as a hypervisor would
    losses    which datagrams were lost, when they were sent, and which of these the fault itself had to drop
    faults    what is broken and how it is mended
    cells     one fault at one state: what came of it
    minds     orchestrators and VMs that change their minds, at every state
    twists    moves that are overtaken by other moves and by deaths
    sweep     the NVA killed at any moment of a move
    requests  clients of the REST interface while the NVA is killed under them
    many      the NVA restarted with very many VMs
    roamer    a VM that moves on and on, with a hypervisor that copes
    chaos     everything at random
    report    the figures as tables

Every scenario returns values that say what was found; `problems()` of each says in words what should not be so.
"""
