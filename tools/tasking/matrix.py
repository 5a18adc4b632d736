"""Who dies, at which of the five steps, and what becomes of the task: always exactly one copy that runs."""

from __future__ import annotations

import socket
import time
from dataclasses import dataclass, field

from topologies import netns
from topologies.rundir import wait_until
from topologies.tasking import StreamTask
from topologies.tasking.agents import AgentOn
from topologies.tasking.task import PORT

from .lab import TaskLab, onward

#: The five, and the moment before the process's word to go on, when its image counts as used.
STEPS = ("stop", "package", "send", "instantiate", "start", "run")
VICTIMS = ("source agent", "destination agent", "source host", "destination host", "NVA")
_AT_SOURCE = STEPS[:3]
#: Where the task's state dies with its host: before the other one has it, or after it may have run there.
ANEW = {("source host", step) for step in _AT_SOURCE} | {("destination host", "run")}


@dataclass
class Cell:
    """One kill."""

    victim: str
    step: str
    home: str = ""  # source or destination
    anew: bool = False  # it began anew
    lost: int = 0  # connections that a client lost
    seconds: float = 0.0  # from the kill until exactly one copy ran and all agents knew
    faults: list[str] = field(default_factory=list)

    def problems(self) -> list[str]:
        """What should not be so."""
        found = list(self.faults)
        expected = (self.victim, self.step) in ANEW
        if self.anew and not expected:
            found.append("the task began anew")
        if self.lost and not expected:
            found.append(f"{self.lost} connections were lost")
        return [f"{self.victim} killed at {self.step}: {text}" for text in found]


class Killer:
    """Kills what it is told to, and brings it back."""

    def __init__(self, lab: TaskLab, source: str, destination: str) -> None:
        self._lab, self._source, self._destination = lab, source, destination

    def kill(self, victim: str) -> None:
        """End it, without a warning."""
        agents = self._lab.agents
        match victim:
            case "source agent":
                agents[self._source].kill()
            case "destination agent":
                agents[self._destination].kill()
            case "source host":
                self._power_off(agents[self._source])
            case "destination host":
                self._power_off(agents[self._destination])
            case "NVA":
                self._lab.lab.nva.kill()

    def _power_off(self, agent: AgentOn) -> None:
        agent.nve.crash()
        agent.crash_host()

    def revive(self, victim: str) -> None:
        """Start it again, as a reboot or its service manager would."""
        if victim == "NVA":
            self._lab.lab.nva.start()
            return
        agent = self._lab.agents[self._source if victim.startswith("source") else self._destination]
        if victim.endswith("host"):
            agent.nve.restart()
        agent.start()


def answers(lab: TaskLab, task: StreamTask) -> bool:
    """Whether a new client is served."""
    with netns.entered(lab.lab.vm("vm3").namespace):
        sock = socket.socket(socket.AF_INET6 if ":" in task.addresses[0] else socket.AF_INET)
    with sock:
        sock.settimeout(2.0)
        try:
            sock.connect((task.addresses[0], PORT))
            return len(sock.recv(16)) > 0
        except OSError:
            return False


def cell(lab: TaskLab, task: StreamTask, source: str, victim: str, step: str) -> tuple[Cell, str]:
    """One kill in a move of a task that runs at ``source``; what came of it, and where the task is now."""
    found = Cell(victim, step)
    destination = onward(source)
    agents = lab.agents
    killer = Killer(lab, source, destination)
    halting = agents[source if step in _AT_SOURCE else destination]
    births = task.births()
    lab.lab.await_synced()  # after the last kill: a host that has just come back takes no task
    with lab.clients(task, 2, vms=("vm3",)) as clients:
        halting.ask("halt", at=step)
        task.move(source, destination)
        wait_until(lambda: halting.ask("list")["halted"] == step, 20, f"a halt at {step}", 0.01)
        started = time.monotonic()
        killer.kill(victim)
        if halting.pid is not None and victim != "NVA":
            halting.ask("proceed")
        time.sleep(0.2)  # whoever survives goes as far as it gets
        killer.revive(victim)
        if victim == "NVA":
            halting.ask("proceed")
        home = agents.await_home(task.name, seconds=45.0)
        found.seconds = time.monotonic() - started
        found.home = {source: "source", destination: "destination"}[home]
        wait_until(lambda: answers(lab, task), 20, "the task serves a new client")
        copies = [pid for agent in agents.on.values() if (row := agent.tasks().get(task.name)) and (pid := row["pid"])]
        if len(copies) != 1:
            found.faults.append(f"{len(copies)} processes")
        seen = clients.stop()
    found.anew = task.births() != births
    _judge(found, task, [text for one in seen for text in one["errors"]])
    return found, home


def _judge(found: Cell, task: StreamTask, errors: list[str]) -> None:
    found.lost = len(errors)
    wrong = [text for text in errors if "record" in text]
    if wrong:
        found.faults.append(f"{len(wrong)} streams were damaged: {wrong[0]}")
    if task.overlaps():
        found.faults.append(f"two copies ran at once: {task.overlaps()[-1]}")
    running = [ran for ran in task.ran() if ran.running]
    if len(running) != 1:
        found.faults.append(f"{len(running)} copies run")
