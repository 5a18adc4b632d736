"""The demonstration: a VM moves between Open vSwitch edges under traffic, and back (see `tools/demo --help`)."""

from __future__ import annotations

import signal
import sys
from pathlib import Path

# Until there is something to tidy up a signal simply ends the program, also where a script has it in the background
for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
    signal.signal(number, signal.SIG_DFL)

HERE = Path(__file__).resolve().parent
for folder in (HERE, HERE.parent):
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))

from demonstration.main import main  # noqa: E402

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
