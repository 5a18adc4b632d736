"""What can go wrong in an agent, beside the tree of ``ryu_vmm.errors``.

    VmmError
    └── AgentError          root of what follows
        ├── HostError           a command of the host failed (ip, nft, ovs-vsctl), or a process did
        ├── Unsupported         this driver, or this kind of socket, cannot be used here; says why
        ├── TaskSilent          the task's process does not answer, or not as agreed
        ├── BadImage            bytes that are not an image, or not a whole one
        └── PeerError           the other agent cannot be reached, is not believed, or refuses
"""

from __future__ import annotations

from ..errors import VmmError

__all__ = ["AgentError", "BadImage", "HostError", "PeerError", "TaskSilent", "Unsupported"]


class AgentError(VmmError):
    """Something went wrong in the agent."""

    code = "agent"


class HostError(AgentError):
    """A command of the host failed; the message has its own words."""

    code = "host"


class Unsupported(AgentError):
    """Not possible on this host, or with this task."""

    code = "unsupported"


class TaskSilent(AgentError):
    """The task's process does not do its part of the protocol."""

    code = "task-silent"


class BadImage(AgentError):
    """An image is damaged, too large, or of another version."""

    code = "bad-image"


class PeerError(AgentError):
    """The agent at the other end of a move failed, refused, or is not who it should be."""

    code = "peer"
