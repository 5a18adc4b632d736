"""What holds in the processes of all tests."""

from __future__ import annotations

import os

# eventlet, once imported, puts modules of its own in the place of dnspython's, with other clocks and sockets: what a
# test imports first should not decide which of them it tries. Authorities that tests start have eventlet's, as users'.
os.environ["EVENTLET_NO_GREENDNS"] = "yes"
import eventlet  # noqa: F401

del os.environ["EVENTLET_NO_GREENDNS"]
