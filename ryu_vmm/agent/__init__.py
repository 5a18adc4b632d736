"""The task agent: one process per host that runs tasks in network namespaces and moves them with their connections.

It is a program of its own (``vmm-agent``), beside the NVA and not inside it: ordinary threads, nothing of Ryu, and an
HTTP client of the NVA like any orchestrator. docs/tasks.md says how a task moves and what happens when something fails.

A program that wants to be moved needs only ``ryu_vmm.agent.cooperate``, which uses the standard library alone.
"""
