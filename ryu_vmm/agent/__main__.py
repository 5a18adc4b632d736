"""``python -m ryu_vmm.agent``: the command ``vmm-agent``."""

from .cli import main

if __name__ == "__main__":
    main(prog_name="vmm-agent")
