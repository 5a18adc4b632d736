"""Everything about the package is in setup.cfg; this adds the one file setup.cfg cannot: the start-up hook.

``ryu_vmm_compat.pth`` has to lie directly in site-packages, where the interpreter reads it at start, so that
``ryu_vmm.compat`` is in place before ``ryu-manager`` imports anything. It goes into wheels and editable
installations alike, is listed in the package's RECORD and so is removed with the package.
"""

from __future__ import annotations

import os

from setuptools import Command, setup
from setuptools.command.build import build

PTH_NAME = "ryu_vmm_compat.pth"
PTH_TEXT = "import ryu_vmm.compat; ryu_vmm.compat.install()\n"


class BuildPth(Command):
    """A sub-command of ``build`` (see setuptools.command.build.SubCommand) that writes the start-up hook."""

    description = "write the .pth file that loads ryu_vmm.compat at interpreter start"
    user_options: list[tuple[str, str | None, str]] = []

    editable_mode = False

    def initialize_options(self) -> None:
        self.build_lib: str | None = None

    def finalize_options(self) -> None:
        self.set_undefined_options("build", ("build_lib", "build_lib"))

    def _path(self) -> str:
        # An editable wheel takes nothing from build_lib; install_lib is then the root of the wheel itself.
        root = self.get_finalized_command("install").install_lib if self.editable_mode else self.build_lib
        return os.path.join(str(root), PTH_NAME)

    def run(self) -> None:
        path = self._path()
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "w", encoding="ascii") as file:
            file.write(PTH_TEXT)

    def get_outputs(self) -> list[str]:
        return [] if self.editable_mode else [self._path()]

    def get_output_mapping(self) -> dict[str, str]:
        return {}

    def get_source_files(self) -> list[str]:
        return []


class Build(build):
    """``build`` with the sub-command above."""

    sub_commands = [*build.sub_commands, ("build_pth", None)]


setup(cmdclass={"build": Build, "build_pth": BuildPth})
