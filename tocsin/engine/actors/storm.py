"""The storm: address after address refused and nothing accepted is our configuration's fault, not theirs. Pure.

A wrong topic, environment, project or mail server answers for every device or mailbox in the words that it has for a
dead one; taken at its word, it would cost all of them.

calm --(so many addresses refused in a row)--> raging
raging --(a success)-------------------------> calm
"""

from __future__ import annotations


class Storm:
    """Counts the addresses that were refused since the last success: each once, however often it is refused.

    `first` in a row are too many as long as nothing was ever accepted, so nothing yet says that the settings are
    right. Once something was, they are, and `later` in a row are too many: then it is the provider that errs, while
    an old list may well have long runs of dead ones. It keeps no more than so many.
    """

    def __init__(self, *, first: int = 10, later: int = 50) -> None:
        self._first = first
        self._later = later
        self._proven = False
        self._refused: set[str] = set()
        self.raging = False

    def refused(self, address: str) -> bool:
        """An address was refused for good; true if that is not to be believed."""
        if not self.raging:
            self._refused.add(address)
            most = self._later if self._proven else self._first
            self.raging = len(self._refused) >= most
        return self.raging

    def accepted(self) -> None:
        """Something was sent: the settings are right, and what is refused is so for its own sake."""
        self._proven = True
        self._refused.clear()
        self.raging = False

    @property
    def addresses(self) -> int:
        """How many addresses were refused since the last success, as far as they were counted."""
        return len(self._refused)
