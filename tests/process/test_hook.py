"""The start-up hook in an interpreter of this environment: what it loads, costs and changes."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any


def python(code: str) -> Any:
    """What `code` prints as JSON, run by this environment's Python."""
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    assert done.stderr == ""
    return json.loads(done.stdout)


def test_the_start_of_python_loads_the_hook_and_nothing_else() -> None:
    loaded = set(python("import sys, json; mods = list(sys.modules); print(json.dumps(mods))"))
    assert "ryu_vmm.compat" in loaded
    assert not loaded & {"ryu", "eventlet", "greenlet", "webob", "ssl", "socket", "logging", "asyncio"}


def test_what_eventlet_lacked_is_there() -> None:
    assert python("import json, eventlet.wsgi as w; print(json.dumps(w.ALREADY_HANDLED))") == []


def test_outside_ryu_manager_the_error_is_raised() -> None:
    code = (
        "import json, socket\n"
        "from ryu.lib import hub\n"
        "with socket.create_server(('127.0.0.1', 0)) as s:\n"
        "    try:\n"
        "        hub.StreamServer(s.getsockname(), print)\n"
        "    except Exception as e:\n"
        "        print(json.dumps([type(e).__name__, type(e.__cause__).__name__]))\n"
    )
    assert python(code) == ["StartupError", "OSError"]


def test_the_hook_costs_little() -> None:
    code = (
        "import json, sys, time\n"
        "for name in ('ryu_vmm', 'ryu_vmm.compat'): sys.modules.pop(name)\n"
        "start = time.process_time()\n"
        "import ryu_vmm.compat; ryu_vmm.compat.install()\n"
        "print(json.dumps((time.process_time() - start) / start))\n"
    )
    # Of what Python takes to start, even where it has to be compiled first; some 4 % where it does not.
    assert min(python(code) for _ in range(5)) < 1
