"""Options in ryu-manager's configuration files that nobody has: oslo.config passes over them without a word."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from oslo_config import cfg

from .errors import InvalidInput
from .nearest import did_you_mean, nearest

__all__ = ["check_files", "files_of"]

LOG = logging.getLogger("ryu_vmm")


def files_of(conf: Any) -> list[Path]:
    """The configuration files that were read, in their order."""
    found = [Path(name) for name in conf.config_file or []]
    for folder in conf.config_dir or []:
        found += sorted(Path(folder).glob("*.conf"))
    return found


def check_files(conf: Any, group: str) -> None:
    """Refuse what is misspelt in a group of the configuration, its name included; elsewhere, where other applications
    have options too, tell what looks misspelt.

    Raises:
        InvalidInput: names file, option and the nearest right one.
    """
    own = set(conf[group])
    for path, section, name in _given(files_of(conf)):
        known = section in conf and not isinstance(conf[section], str)
        if section == group:
            if name not in own:
                raise InvalidInput(f"{path}: [{group}] has no option {name}{_elsewhere(name, own, conf)}", field=name)
        elif section == "DEFAULT":
            if name in own and name not in conf:
                raise InvalidInput(f"{path}: {name} is an option of [{group}], not of [DEFAULT]", field=name)
            if name not in conf and (hint := did_you_mean(name, list(conf))):
                LOG.warning("%s: [DEFAULT] has no option %s%s", path, name, hint)
        elif not known and nearest(section, [group]) is not None:
            raise InvalidInput(f"{path}: there is no group [{section}]; did you mean [{group}]?", field=section)


def _elsewhere(name: str, own: set[str], conf: Any) -> str:
    return "; it is one of [DEFAULT]" if name in conf and name not in own else did_you_mean(name, own)


def _given(paths: list[Path]) -> Iterator[tuple[Path, str, str]]:
    """File, group and name of every option that is set."""
    for path in paths:
        sections: dict[str, dict[str, Any]] = {}
        if path.is_file():
            cfg.ConfigParser(str(path), sections).parse()
        for section, options in sections.items():
            yield from ((path, section, name) for name in options)
