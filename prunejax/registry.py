"""Plug-ins by name: what a study is made of.

A plug-in is a value (a NamedTuple with a `name`) in its own file. Importing that file adds it. The
files of the package that holds the built-in ones are imported at the first look-up, so a new file
needs no list. Custom ones call `add` in a module that `--study` imports.
"""

import difflib
import importlib
import inspect
import pkgutil
from collections.abc import Iterator
from typing import Generic, Protocol, TypeVar, no_type_check, runtime_checkable

from prunejax.config.errors import UserError


@runtime_checkable
class Named(Protocol):
    """What a plug-in must have."""

    @property
    def name(self) -> str:
        """The name in configurations."""
        ...


Entry = TypeVar("Entry", bound=Named)


class Registry(Generic[Entry]):
    """The plug-ins of one kind."""

    def __init__(self, kind: str, package: str) -> None:
        """Opens an empty registry.

        Args:
            kind: what a plug-in is called in errors, for instance `measure`.
            package: the package with the modules of the built-in ones, for instance
                `prunejax.measures`.
        """
        self.kind = kind
        self._package = package
        self._entries: dict[str, Entry] = {}
        self._added_in: dict[str, str] = {}
        self._discovered = False

    @no_type_check  # a run-time check would stand between this and the module that calls it
    def add(self, entry: Entry) -> Entry:
        """Adds a plug-in and returns it.

        Raises:
            UserError: if another module has added one of that name.
        """
        frame = inspect.currentframe()
        caller = frame.f_back if frame else None
        module = caller.f_globals.get("__name__", "?") if caller else "?"
        before = self._added_in.get(entry.name, module)
        if before != module:
            raise UserError(
                f"{self.kind} {entry.name!r} is registered twice, by {before} and by {module}; "
                "give one of them another name"
            )
        self._entries[entry.name] = entry
        self._added_in[entry.name] = module
        return entry

    def __getitem__(self, name: str) -> Entry:
        """The plug-in of that name.

        Raises:
            UserError: if there is none, with the nearest name.
        """
        self._discover()
        if name not in self._entries:
            close = difflib.get_close_matches(name, self._entries, n=1)
            guess = f"did you mean {close[0]!r}? " if close else ""
            raise UserError(
                f"no {self.kind} {name!r}; {guess}There are: {', '.join(self)}; "
                "a custom one is added by the module that --study names"
            )
        return self._entries[name]

    def __iter__(self) -> Iterator[str]:
        """The names: built-in ones in the order of their files, then custom ones as added."""
        self._discover()
        prefix = f"{self._package}."
        built_in = {}
        for name, module in self._added_in.items():
            if module.startswith(prefix):
                built_in[name] = module
        yield from sorted(built_in, key=built_in.__getitem__)
        yield from (name for name in self._entries if name not in built_in)

    def __contains__(self, name: str) -> bool:
        self._discover()
        return name in self._entries

    def values(self) -> list[Entry]:
        """The plug-ins in the order of the names."""
        return [self._entries[name] for name in self]

    def _discover(self) -> None:
        """Imports every module of the package, once."""
        if self._discovered:
            return
        package = importlib.import_module(self._package)
        for module in pkgutil.iter_modules(package.__path__):
            importlib.import_module(f"{self._package}.{module.name}")
        self._discovered = True
