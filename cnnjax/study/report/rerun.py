"""The command that runs one trial again, quoted for a shell.

    command(config)           # cnnjax train --pool=aps --stride=3 ...

It says every field that is not at its default, machine paths too, and reads back to the same trial.
"""

from __future__ import annotations

import shlex
from typing import Any

from cnnjax.config import FIELDS, Config, read
from cnnjax.study.results import words


def command(config: Config) -> str:
    """Return the shell command that trains this configuration.

    What flags cannot say (a directory whose name is `default`) is said in Python instead.
    """
    chosen = {k: getattr(config, k) for k, f in FIELDS.items() if getattr(config, k) != f.default}
    texts = {name: words(value) for name, value in chosen.items()}
    if all(_reads_back(name, texts[name], value) for name, value in chosen.items()):
        return shlex.join(["cnnjax", "train", *(f"--{k}={v}" for k, v in texts.items())])
    choices = ", ".join(f"{name}={value!r}" for name, value in chosen.items())
    program = f"import cnnjax; print(cnnjax.run(cnnjax.Config({choices}))['metrics'])"
    return shlex.join(["python", "-c", program])


def _reads_back(name: str, flag: str, value: Any) -> bool:
    try:
        return bool(read(name, flag) == value)
    except (ValueError, TypeError):
        return False
