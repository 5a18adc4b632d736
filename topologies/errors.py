"""Errors of the topology, one tree.

    TopologyError            something about building or driving the emulated network failed
      CommandError           a program (ip, ovs-vsctl, ...) ended with an error; its words are in the text
      HelperError            the vnic or relay process refused or died
      NotReady               a condition was not met before its deadline
      ApiError               the NVA's REST interface refused; `status` and `problem` say why
"""

from __future__ import annotations

from typing import Any


class TopologyError(Exception):
    """Something about building or driving the emulated network failed."""


class CommandError(TopologyError):
    """A program ended with an error."""


class HelperError(TopologyError):
    """The vnic or relay process refused a request or died."""


class NotReady(TopologyError):
    """A condition was not met before its deadline."""


class ApiError(TopologyError):
    """The NVA's REST interface refused a request or could not be reached.

    `status` is the HTTP status (0: no answer at all); `problem` the problem document (RFC 9457), if any.
    """

    def __init__(self, text: str, status: int = 0, problem: dict[str, Any] | None = None) -> None:
        super().__init__(text)
        self.status = status
        self.problem = problem or {}
