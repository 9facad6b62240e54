"""Flags derived from Config: one flag a field, a comma a sweep axis, an x a tuple.

In a sweep a comma of a name itself is written `\\,`; where one value is asked for it stands alone.

flags = Flags("study", HELP)
flags.config(sweep=True)
flags.string("out", None, "directory of the study")
rest = flags.parse(words)              # words that are no flags; None after --help
flags.given_config()                   # {"pool": ("max", "mean")}
flags.out
"""

from __future__ import annotations

import dataclasses
import re
import sys
from collections.abc import Sequence
from typing import Any

from absl import flags as absl_flags

from cnnjax import config as configs

COMMA = re.compile(r"(?<!\\),")  # not one that is escaped
HELP_WORDS = ("-h", "-help", "--help")


class FieldParser(absl_flags.ArgumentParser):
    """Reads one field of Config, or in a sweep a comma-separated list of its values."""

    def __init__(self, name: str, *, sweep: bool) -> None:
        self.name, self.sweep = name, sweep
        self.syntactic_help = ""

    def parse(self, argument: Any) -> tuple[Any, ...]:
        if not self.sweep:
            return (self._one(argument),)
        texts = (text.replace(r"\,", ",") for text in COMMA.split(argument))
        return tuple(dict.fromkeys(configs.read(self.name, text) for text in texts))

    def _one(self, text: str) -> Any:
        try:
            return configs.read(self.name, text)
        except ValueError:
            if "," not in text:
                raise
            raise ValueError(f"{text!r} is a list; `cnnjax study` runs several values") from None

    def flag_type(self) -> str:
        return "config"


class Flags:
    """The flags of one verb, on their own FlagValues: the process-wide FLAGS is never touched."""

    def __init__(self, verb: str, text: str) -> None:
        self._verb, self._text = verb, text
        self._values = absl_flags.FlagValues()
        self._fields: tuple[str, ...] = ()
        self._sweep = False

    def __getattr__(self, name: str) -> Any:
        return self._values[name].value

    def config(self, *, sweep: bool, only: Sequence[str] = tuple(configs.FIELDS)) -> None:
        """Define a flag for every field of Config, or for those of `only`."""
        self._fields, self._sweep = tuple(only), sweep
        for name in only:
            field = configs.FIELDS[name]
            kind = field.metadata["kind"]
            text = f"[{kind.metavar}] {field.metadata['help']}"
            absl_flags.DEFINE(
                FieldParser(name, sweep=sweep), name, None, text, self._values, _Text()
            )

    def string(self, name: str, default: str | None, text: str) -> None:
        """Define a text flag."""
        absl_flags.DEFINE_string(name, default, text, flag_values=self._values)

    def integer(self, name: str, default: int | None, text: str, *, least: int = 1) -> None:
        """Define an integer flag >= least."""
        absl_flags.DEFINE_integer(name, default, text, least, flag_values=self._values)

    def boolean(self, name: str, text: str) -> None:
        """Define a flag that is off unless given."""
        absl_flags.DEFINE_bool(name, False, text, flag_values=self._values)

    def parse(self, words: Sequence[str]) -> list[str] | None:
        """Read the words; return those that are no flags, None where the help was asked for."""
        if any(word in HELP_WORDS for word in words):
            print(self.help())
            return None
        rest = list(self._values([f"cnnjax {self._verb}", *words]))[1:]
        for name in self._fields if self._sweep else ():
            times = self._values[name].present
            if times > 1:
                print(f"cnnjax: --{name} is given {times} times; the last counts", file=sys.stderr)
        return rest

    def given_config(self) -> dict[str, tuple[Any, ...]]:
        """Return the fields given on the command line, each with its values."""
        given: dict[str, Any] = {name: self._values[name] for name in self._fields}
        return {name: flag.value for name, flag in given.items() if flag.present}

    def help(self) -> str:
        """Return the help: the verb's text, then every flag with its default."""
        defaults = {f.name: f.default for f in dataclasses.fields(configs.Config)}
        lines = [self._text.strip(), "", "flags:"]
        for name in self._values:
            flag = self._values[name]
            default = defaults.get(name, flag.default)
            shown = "" if default in (None, False) else f" (default: {default})"
            lines += [f"  --{name}", f"      {flag.help}{shown}"]
        return "\n".join(lines)


class _Text(absl_flags.ArgumentSerializer):
    def serialize(self, value: Any) -> str:
        return ",".join(str(item) for item in value)
