"""Which entries of a stream are taken: each once, in order, whatever comes how often."""

from enum import Enum, auto

from agentws.client.wire import Nonsense


class _State(Enum):
    FLOWING = auto()
    """Each entry follows the last one."""

    DROPPING = auto()
    """There was no room; what comes is dropped until there is."""

    CATCHING_UP = auto()
    """Attached anew on the same socket, where what was sent before that still arrives."""


class Reception:
    """One run's place in its stream.

    `received` is the number of the last entry that was taken.
    """

    def __init__(self, after: int = 0) -> None:
        self.received = after
        self._state = _State.FLOWING
        self._skipped = after

    def takes(self, number: int, *, has_room: bool) -> bool:
        """Tell whether an entry is to be taken; count it if so.

        Raises `Nonsense` where one before it is missing.
        """
        if number != self.received + 1:
            if number > self.received:
                self._skip(number)
            return False
        if not has_room:
            self._state, self._skipped = _State.DROPPING, number
            return False
        self.received = number
        self._state = _State.FLOWING
        return True

    def _skip(self, number: int) -> None:
        if self._state is _State.FLOWING:
            raise Nonsense(f"The server sent chunk {number} after {self.received}")
        self._skipped = number

    def is_untimely(self, number: int) -> bool:
        """Tell whether an entry has no place in what comes now, as questions may that are open.

        They are told to whoever attaches, before the entries that are replayed.
        """
        if number > self.received + 1:
            return self._state is _State.FLOWING
        return number <= self.received

    @property
    def is_behind(self) -> bool:
        """Whether entries were dropped that have to be asked for."""
        return self._state is _State.DROPPING

    @property
    def is_catching_up(self) -> bool:
        """Whether what was sent before the last attach may still arrive."""
        return self._state is _State.CATCHING_UP

    @property
    def may_end(self) -> bool:
        """Whether an end that comes now is the end, with nothing missing before it."""
        return self._skipped <= self.received or self._state is _State.FLOWING

    def attached(self, *, anew: bool) -> None:
        """Note that the stream comes after `received`; `anew` on a socket where it came before."""
        self._state = _State.CATCHING_UP if anew else _State.FLOWING
        if not anew:
            self._skipped = self.received

    def skip_to(self, first: int) -> None:
        """Do without what comes before entry `first`."""
        self.received = max(self.received, first - 1)
