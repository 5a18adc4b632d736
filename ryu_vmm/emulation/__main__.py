"""``python -m ryu_vmm.emulation ADDRESS PORT``: emulated switches for the controller there (see ``service``)."""

import sys

from .service import serve

if __name__ == "__main__":
    serve((sys.argv[1], int(sys.argv[2])))
