"""Entries by name: what a study is made of, found in the room that is open to their kind.

An entry is a value (a NamedTuple with a `name`) in a file of its own. Importing that file adds it;
the files of the kind's own room are imported at the first look-up, so that a new file needs no
list to be written into. Outsiders add theirs by calling `add` in a module that `--study` imports.
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
    """What an entry must have."""

    @property
    def name(self) -> str:
        """How configurations refer to it."""
        ...


Entry = TypeVar("Entry", bound=Named)


class Registry(Generic[Entry]):
    """The entries of one kind."""

    def __init__(self, kind: str, room: str) -> None:
        """Opens an empty registry.

        Args:
            kind: what an entry is called in errors, for instance `measure`.
            room: the package whose modules hold the built-in entries, for instance
                `prunejax.measures`.
        """
        self.kind = kind
        self._room = room
        self._entries: dict[str, Entry] = {}
        self._added_in: dict[str, str] = {}
        self._discovered = False

    @no_type_check  # a run-time check would stand between this and the module that calls it
    def add(self, entry: Entry) -> Entry:
        """Adds an entry and returns it.

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
        """The entry of that name.

        Raises:
            UserError: if there is none, with the nearest name.
        """
        self._discover()
        if name not in self._entries:
            close = difflib.get_close_matches(name, self._entries, n=1)
            guess = f"did you mean {close[0]!r}? " if close else ""
            raise UserError(
                f"no {self.kind} {name!r}; {guess}There are: {', '.join(self)}; "
                "one's own is added by the module that --study names"
            )
        return self._entries[name]

    def __iter__(self) -> Iterator[str]:
        """The names: built-in ones in the order of their files, then outsiders' as they came."""
        self._discover()
        room = f"{self._room}."
        built_in = {}
        for name, module in self._added_in.items():
            if module.startswith(room):
                built_in[name] = module
        yield from sorted(built_in, key=built_in.__getitem__)
        yield from (name for name in self._entries if name not in built_in)

    def __contains__(self, name: str) -> bool:
        self._discover()
        return name in self._entries

    def values(self) -> list[Entry]:
        """The entries in the order of the names."""
        return [self._entries[name] for name in self]

    def _discover(self) -> None:
        """Imports every module of the room, once."""
        if self._discovered:
            return
        room = importlib.import_module(self._room)
        for module in pkgutil.iter_modules(room.__path__):
            importlib.import_module(f"{self._room}.{module.name}")
        self._discovered = True
