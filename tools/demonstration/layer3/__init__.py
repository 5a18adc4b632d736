"""What `tools/demo --layer3` runs: one story in four chapters.

    cast         the networks, NVEs, guests and tasks, as data
    stage        all of it built, connected and registered, with a name server and an agent at each NVE
    claims       what the story claims, and what was found
    frames       a frame of the underlay, layer by layer
    carried      chapter 1: one packet by each of three ways
    datagrams    chapter 2: a task keeps its addresses under UDP
    connections  chapter 3: a task keeps its TCP connections
    follower     a client that knows a name, and what it takes to find that again
    renamed      chapter 4: tasks whose addresses change
    story        from beginning to end
"""
