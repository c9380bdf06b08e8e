"""A log compared with a model of it, whatever happens when."""

import asyncio

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from agentws.protocol.errors import ReplayGap
from agentws.stores.log import BATCH, Log, Outcome
from tests.stores.conftest import PATIENCE, Listener, a_log, completed, failed, others, patient


class Model(Listener):
    """A listener that knows what it has to get."""

    def __init__(self, log: Log, after: int) -> None:
        self.after = after
        super().__init__(log, after)

    @property
    def reached(self) -> int:
        return self.after + len(self.chunks)


class LogMachine(RuleBasedStateMachine):
    """Compares a log with the list of all that was ever appended."""

    @initialize(replay_bytes=st.sampled_from([1, 20, 100, 1000]))
    def open(self, replay_bytes: int) -> None:
        self.log = a_log(replay_bytes=replay_bytes)
        self.replay_bytes = replay_bytes
        self.written: list[bytes] = []
        self.sizes = [0]  # how many bytes the first chunks have together
        self.listeners: list[Model] = []
        self.droppable = 0  # up to here some listener had it all, or nobody listened
        self.ended = False
        self.told: list[bool] = []
        self.expected: list[bool] = []
        self.log.on_attendance = self.told.append
        self.loop = asyncio.new_event_loop()
        self.writer: asyncio.Task[None] | None = None

    @property
    def waiting(self) -> bool:
        return self.writer is not None and not self.writer.done()

    def turn(self) -> None:
        """Let the writer go on, if it can; what the fastest listener has may now be dropped."""
        self.droppable = max(self.droppable, self.fastest)
        self.loop.run_until_complete(others())

    @property
    def last(self) -> int:
        return len(self.written)

    def bytes_after(self, number: int) -> int:
        return self.sizes[-1] - self.sizes[min(number, self.last)]

    @property
    def fastest(self) -> int:
        """The number up to which nobody needs a chunk, replay aside."""
        return min(max((one.reached for one in self.listeners), default=self.last), self.last)

    def must_be_held(self, number: int) -> bool:
        return number > self.droppable or self.bytes_after(number - 1) <= self.replay_bytes

    # What may happen

    @precondition(lambda self: not self.ended and not self.waiting)
    @rule(sizes=st.lists(st.integers(1, 60), min_size=1, max_size=5), is_patient=st.booleans())
    def append(self, sizes: list[int], is_patient: bool) -> None:
        for size in sizes:
            chunk = str(self.last + 1).encode().ljust(size, b".")
            self.written.append(chunk)
            self.sizes.append(self.sizes[-1] + len(chunk))
            self.droppable = max(self.droppable, self.fastest)
            self.log.append(chunk)
            held = sum(map(len, self.log.held))
            assert held <= max(self.replay_bytes, self.bytes_after(self.fastest))
            if self.log.is_over_high_water:
                self.wait(is_patient)
            if self.waiting:
                break

    def wait(self, is_patient: bool) -> None:
        self.writer = self.loop.create_task(
            self.log.wait_for_followers(PATIENCE * 100 if is_patient else 0)
        )
        self.turn()
        assert self.waiting == is_patient
        if not is_patient:
            self.droppable = self.last

    @precondition(lambda self: not self.ended and not self.waiting)
    @rule()
    def append_more_than_a_batch(self) -> None:
        self.append([1] * (BATCH + 2), is_patient=True)

    @precondition(lambda self: not self.ended)
    @rule(outcome=st.builds(failed) | st.builds(completed))
    def end(self, outcome: Outcome) -> None:
        self.ended = True
        self.log.end(outcome)

    @rule(back=st.integers(-3, 10))
    def follow(self, back: int) -> None:
        after = max(self.last - back, 0)
        gone = after + 1 < self.log.first
        try:
            listener = Model(self.log, after)
        except ReplayGap as gap:
            self.check_gap(gap, after)
            return
        assert not gone, "it is promised what is not held"
        if not self.listeners and self.expected and not self.ended:
            self.expected.append(True)
        self.listeners.append(listener)
        self.turn()

    @precondition(lambda self: self.listeners)
    @rule(index=st.integers(0, 9), max_bytes=st.integers(0, 200))
    def take(self, index: int, max_bytes: int) -> None:
        listener = self.listeners[index % len(self.listeners)]
        before = listener.reached
        try:
            chunks = listener.take(max_bytes)
        except ReplayGap as gap:
            self.check_gap(gap, before)
            self.forget(listener)
            return
        assert chunks == self.written[before : before + len(chunks)]
        assert bool(chunks) == (self.last > before)
        assert len(chunks) <= 1 or sum(map(len, chunks)) <= max_bytes
        self.turn()
        if listener.finished:
            assert self.ended
            assert listener.reached >= self.last
            assert not listener.is_woken()
            self.forget(listener)

    @precondition(lambda self: self.listeners)
    @rule(index=st.integers(0, 9))
    def leave(self, index: int) -> None:
        self.forget(self.listeners[index % len(self.listeners)])

    def check_gap(self, gap: ReplayGap, position: int) -> None:
        assert not self.must_be_held(position + 1)
        assert gap.first_available == self.log.first > position + 1

    def forget(self, listener: Model) -> None:
        listener.leave()
        self.listeners.remove(listener)
        if not self.listeners and not self.ended:
            self.expected.append(False)
        self.turn()

    # What always holds

    @invariant()
    def what_has_to_be_held_is_held(self) -> None:
        log = self.log
        assert log.last == self.last
        assert log.written == self.bytes_after(0)
        assert list(log.held) == self.written[log.first - 1 :]
        assert log.first <= log.last + 1
        assert log.first == 1 or not self.must_be_held(log.first - 1)

    @invariant()
    def listeners_know_of_news(self) -> None:
        for listener in self.listeners:
            assert listener.position == listener.reached
            has_all = listener.reached >= self.last
            assert listener.finished == (self.ended and has_all)
            if self.ended or not has_all:
                assert listener.is_woken()

    @invariant()
    def the_writer_waits_for_nothing_but_listeners_with_something_to_take(self) -> None:
        if self.waiting:
            assert any(listener.is_woken() for listener in self.listeners)

    @invariant()
    def attendance_is_told(self) -> None:
        assert self.told == self.expected
        assert self.log.attended == bool(self.listeners)

    def teardown(self) -> None:
        """End the log: by its news alone, each listener comes to the end or to a gap."""
        if not hasattr(self, "log"):
            return
        try:
            self.let_all_come_to_the_end()
        finally:
            if self.writer is not None:
                self.writer.cancel()
                self.loop.run_until_complete(asyncio.wait({self.writer}))
            self.loop.close()

    def let_all_come_to_the_end(self) -> None:
        if not self.ended:
            self.end(outcome=completed())
        while woken := [listener for listener in self.listeners if listener.is_woken()]:
            self.take(self.listeners.index(woken[0]), 50)
        assert not self.listeners
        assert not self.waiting


LogMachine.TestCase.settings = settings(
    patient, max_examples=150, stateful_step_count=40, print_blob=True
)
TestWhateverHappensWhen = LogMachine.TestCase
