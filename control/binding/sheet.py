"""
Read the fields of one mapping, and complain about every one that is wrong.

In: a Mapping node.  Out: typed values (None or the default where a field is wrong or missing), and ResourceErrors in a shared list.
What is asked for is known; ``close`` reports the rest with the nearest known name.  Nothing raises, so one run shows all errors.  Pure.
"""

from collections.abc import Callable, Iterable
from typing import Any, TypeVar

from control.binding.document import Entry, Listing, Mapping, Node, Scalar, kind_of
from control.binding.duration import seconds
from control.binding.rule import by
from control.errors import Place, ResourceError
from control.reason import Reason

T = TypeVar("T")
Faults = list[ResourceError]


def nearest(word: str, known: Iterable[str]) -> str:
    """Give a hint that names the closest known word, or all of them."""
    import difflib  # noqa: PLC0415  # only for who made a mistake

    words = sorted(known)
    close = difflib.get_close_matches(word, words, n=1, cutoff=0.6)
    folded = [candidate for candidate in words if candidate.lower() == word.lower()]
    if folded or close:
        return f'did you mean "{(folded or close)[0]}"?'
    return "known: " + ", ".join(words) if words else "none is known here"


class Sheet:
    """One mapping being read."""

    __slots__ = ("_node", "_place", "broken", "entries", "faults", "known", "private", "what")

    def __init__(self, node: Node | None, what: str, faults: Faults, place: Place | None = None, *, private: bool = False) -> None:
        """
        ``what`` names the mapping for people (``spec``); a node of another type is one error and reads as empty.

        In a ``private`` one a secret may stand by mistake: no error repeats a value or an unknown name, and none of a sheet inside of it.
        """
        self.what, self.faults, self.private = what, faults, private
        self._node, self._place = node, place
        self.known: set[str] = set()
        self.entries: dict[str, Entry] = {}
        self.broken = not isinstance(node, Mapping)
        if isinstance(node, Mapping):
            self.entries = node.entries
        elif node is not None:
            self.fault(
                f"{what or 'the document'} is {self.shown(node)} instead of a mapping",
                node.place,
                hint="write its fields below it, indented",
            )

    @property
    def place(self) -> Place | None:
        """Where the mapping stands, or what it is missing from."""
        return self._node.place if self._node is not None else self._place

    def name(self, key: str) -> str:
        """Give a field's name from the top, for people."""
        return f"{self.what}.{key}" if self.what else key

    def shown(self, node: Node) -> str:
        """Give what a node is, for people."""
        if self.private and isinstance(node, Scalar) and node.value is not None:
            return {bool: "a truth value", int: "a number", str: "text"}[type(node.value)]
        return kind_of(node)

    def fault(
        self, message: str, place: Place | None = None, *, hint: str = "", reason: Reason = Reason.RESOURCE_MALFORMED, rule: str = ""
    ) -> None:
        """Note one error; one that breaks a rule (control/binding/rule.py) ends with its name."""
        self.faults.append(ResourceError(reason, message + by(rule) if rule else message, place=place or self.place, hint=hint))

    def has(self, key: str) -> bool:
        """Say whether the field is there, whatever it holds."""
        self.known.add(key)
        return key in self.entries

    def where(self, key: str) -> Place | None:
        """Give the place of the field's value, or of the mapping when it is missing."""
        entry = self.entries.get(key)
        return entry.value.place if entry else self.place

    def node(self, key: str, *, needed: bool = False, example: str = "", rule: str = "") -> Node | None:
        """Give the raw node of a field; ``rule`` says what a missing one breaks."""
        self.known.add(key)
        entry = self.entries.get(key)
        value = entry.value if entry is not None else None
        if value is None or (isinstance(value, Scalar) and value.value is None):
            if needed and not self.broken:
                state = "is missing" if entry is None else "is empty"
                hint = f"add {key}: {example}" if example else f"add {key}"
                self.fault(f"{self.name(key)} {state}", entry.place if entry else None, hint=hint, rule=rule)
            return None
        return value

    def text(
        self, key: str, *, needed: bool = False, default: str = "", check: Callable[[str], str] | None = None, example: str = "",
        rule: str = "",
    ) -> str:  # fmt: skip
        """Read one line of text; ``check`` gives the normal form or raises ResourceError without a place."""
        node = self.node(key, needed=needed, example=example, rule=rule)
        if node is None:
            return default
        value = self._one_line(node, key)
        if value is None:
            return default
        return value if check is None else self.checked(value, node, check, default)

    def _one_line(self, node: Node, key: str) -> str | None:
        value = node.value if isinstance(node, Scalar) else None
        if not isinstance(value, str):
            quote = " (quote it if it is)" if isinstance(node, Scalar) else ""
            self.fault(f"{self.name(key)} is {self.shown(node)} instead of text{quote}", node.place, hint="write one line of text")
            return None
        if not value or value != value.strip() or "\n" in value:
            says = f"{self.name(key)} is empty, has several lines or blanks around it"
            self.fault(says, node.place, hint="write one line of text")
            return None
        return value

    def checked(self, value: str, node: Node, check: Callable[[str], str], default: str = "") -> str:
        """Run ``check`` and put its error where the value stands."""
        try:
            return check(value)
        except ResourceError as error:
            self.fault(error.message, node.place, hint=error.hint, reason=error.reason)
            return default

    def choice(self, key: str, allowed: Iterable[str], *, needed: bool = False, default: str = "", later: Iterable[str] = ()) -> str:
        """Read one word out of several; words in ``later`` are understood and refused as not available yet."""
        node = self.node(key, needed=needed, example=" | ".join(allowed))
        if node is None:
            return default
        text = node.text if isinstance(node, Scalar) else ""
        if text in allowed:
            return text
        if text in later:
            self.fault(f'{self.name(key)} "{text}" is not available in this version', node.place, hint="use " + " or ".join(allowed))
        else:
            self.fault(f"{self.name(key)} is {self.shown(node)}", node.place, hint=nearest(text, allowed))
        return default

    def integer(self, key: str, *, low: int, high: int, default: int) -> int:
        """Read a whole number between two bounds."""
        node = self.node(key)
        if node is None:
            return default
        value = self.number(node, self.name(key), low, high)
        return default if value is None else value

    def number(self, node: Node, what: str, low: int, high: int) -> int | None:
        """Read a number out of a node."""
        if not isinstance(node, Scalar) or not isinstance(node.value, int) or isinstance(node.value, bool):
            self.fault(f"{what} is {self.shown(node)} instead of a number", node.place, hint=f"write a number from {low} to {high}")
            return None
        if not low <= node.value <= high:
            self.fault(f"{what} is {node.value}, outside of {low} to {high}", node.place, hint=f"write a number from {low} to {high}")
            return None
        return node.value

    def truth(self, key: str, *, default: bool = False) -> bool:
        """Read true or false."""
        node = self.node(key)
        if node is None:
            return default
        if not isinstance(node, Scalar) or not isinstance(node.value, bool):
            self.fault(f"{self.name(key)} is {self.shown(node)} instead of true or false", node.place, hint="write true or false")
            return default
        return node.value

    def duration(self, key: str, *, low_s: int, high_s: int, default_s: int, rule: str = "") -> int:
        """Read a duration in whole seconds; above ``high_s`` it is over-broad, and breaks ``rule``."""
        node = self.node(key)
        if node is None:
            return default_s
        value = seconds(node.text) if isinstance(node, Scalar) else None
        if value is None:
            self.fault(f"{self.name(key)} is {self.shown(node)} instead of a duration", node.place, hint="write 90s, 10m, 1h or 30d")
            return default_s
        if not low_s <= value <= high_s:
            reason = Reason.RESOURCE_OVERBROAD if value > high_s else Reason.RESOURCE_MALFORMED
            bounds = f"write a duration from {low_s}s to {high_s}s"
            self.fault(
                f'{self.name(key)} "{self.shown(node).strip(chr(34))}" is outside of {low_s}s to {high_s}s',
                node.place,
                hint=bounds,
                reason=reason,
                rule=rule if value > high_s else "",
            )
            return default_s
        return value

    def listing(self, key: str, *, needed: bool = False, example: str = "") -> list[Node]:
        """Give the nodes of a list; an empty list is an error, as it could be read as "all" or "none"."""
        node = self.node(key, needed=needed, example=example)
        if node is None:
            return []
        if not isinstance(node, Listing):
            self.fault(
                f"{self.name(key)} is {self.shown(node)} instead of a list",
                node.place,
                hint="write [one] or a list of lines that begin with -",
            )
            return []
        if not node.items:
            self.fault(f"{self.name(key)} is an empty list", node.place, hint="leave it out or name something")
        return list(node.items)

    def texts(self, key: str, *, check: Callable[[str], str] | None = None, needed: bool = False, example: str = "") -> tuple[str, ...]:
        """Read a list of different texts."""
        found: dict[str, Any] = {}
        for node in self.listing(key, needed=needed, example=example):
            raw = self._one_line(node, key)
            value = raw if raw is None or check is None else self.checked(raw, node, check)
            if value in found:
                self.fault(f'{self.name(key)} names "{value}" twice', node.place, hint="keep one", reason=Reason.RESOURCE_DUPLICATE)
            if value:
                found[value] = node
        return tuple(found)

    def sheet(self, key: str, *, needed: bool = False, example: str = "", private: bool = False) -> "Sheet":
        """Read a mapping inside of this one; missing ones read as empty."""
        node = self.node(key, needed=needed, example=example)
        beside = self.place if node is None else None
        return Sheet(node, self.name(key), self.faults, beside, private=private or self.private)

    def close(self) -> None:
        """Report every field that nobody asked for."""
        if self.entries.keys() <= self.known:
            return
        for key, entry in self.entries.items():
            if key not in self.known:
                unknown = "an unknown field" if self.private else f'no field "{key}"'
                self.fault(f"{self.what or 'the document'} has {unknown}", entry.place, hint=nearest(key, self.known))
