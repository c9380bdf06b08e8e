"""Inputs on their way to the replica that runs the invocation, and what came of them."""

import asyncio
import contextlib
from collections import OrderedDict
from collections.abc import Callable
from typing import Final

from agentws.protocol.encoding import encode
from agentws.protocol.errors import InvocationError, PlatformError
from agentws.protocol.identifiers import IdSource
from agentws.protocol.inputs import Delivery
from agentws.protocol.records import Failure
from agentws.stores.redis.commands import Commands, Unavailable
from agentws.stores.redis.pubsub import RemoteInput, RemoteReceipt
from agentws.stores.redis.timings import Timings

REPEAT_AFTER: Final = 0.5
"""Seconds after which an input is sent again: pub/sub delivers at most once."""

PATIENCE: Final = 2.8
"""Seconds after which it is not known whether an input has arrived, within the 3 s of §10."""

MOST_REMEMBERED: Final = 1024
"""How many receipts are remembered, for inputs that are sent again."""

Take = Callable[[RemoteInput], None]
"""Hands an input to its invocation. Raises `InvocationError`, `LookupError` where that is gone."""


class _Turn:
    """Lets those who send to one invocation go one after the other."""

    def __init__(self) -> None:
        self.lock = asyncio.Lock()
        self.senders = 0


class Deliveries:
    """Sends inputs until a receipt comes; gives receipts, the same for each input however often."""

    def __init__(self, commands: Commands, timings: Timings) -> None:
        self._commands = commands
        self._timings = timings
        self._new_name = IdSource()
        self._awaited: dict[str, asyncio.Future[RemoteReceipt]] = {}
        self._turns: dict[str, _Turn] = {}
        self._given: OrderedDict[str, RemoteReceipt] = OrderedDict()

    async def send(self, invocation_id: str, replica: str, delivery: Delivery) -> bool:
        """Hand an input to a replica; tell whether its invocation runs there.

        Those for one invocation are sent one after the other, in the order in which this is called.
        Raises `InvocationError` where it is refused, `store_unavailable` where no receipt comes.
        """
        turn = self._turns.setdefault(invocation_id, _Turn())
        turn.senders += 1
        try:
            async with asyncio.timeout(PATIENCE), turn.lock:
                receipt = await self._exchange(invocation_id, replica, delivery)
        except TimeoutError:
            raise self._silence() from None
        finally:
            turn.senders -= 1
            if not turn.senders:
                del self._turns[invocation_id]
        if receipt.failure is not None:
            raise receipt.failure.error()
        return not receipt.is_gone

    def _silence(self) -> PlatformError:
        """Return why no receipt has come: Redis is away, else the replica is."""
        if not self._commands.up:
            return Unavailable()
        text = "The replica that runs the invocation does not answer"
        return PlatformError("store_unavailable", text)

    async def _exchange(
        self, invocation_id: str, replica: str, delivery: Delivery
    ) -> RemoteReceipt:
        name = self._new_name()
        message = encode(RemoteInput(invocation_id, self._timings.replica, name, delivery))
        receipt = asyncio.get_running_loop().create_future()
        self._awaited[name] = receipt
        try:
            while True:
                self._commands.call(b"PUBLISH", self._timings.keys.replica(replica), message)
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(REPEAT_AFTER):
                        return await asyncio.shield(receipt)
        finally:
            del self._awaited[name]

    def on_receipt(self, receipt: RemoteReceipt) -> None:
        """Take note of a receipt that another replica gave."""
        awaited = self._awaited.get(receipt.name)
        if awaited is not None and not awaited.done():
            awaited.set_result(receipt)

    def on_input(self, message: RemoteInput, take: Take) -> None:
        """Hand on what another replica has sent, once, and give it a receipt."""
        receipt = self._given.get(message.name)
        if receipt is None:
            receipt = self._given[message.name] = _receipt(message, take)
            if len(self._given) > MOST_REMEMBERED:
                self._given.popitem(last=False)
        if self._commands.up:
            channel = self._timings.keys.replica(message.replica)
            self._commands.call(b"PUBLISH", channel, encode(receipt))


def _receipt(message: RemoteInput, take: Take) -> RemoteReceipt:
    try:
        take(message)
    except InvocationError as error:
        return RemoteReceipt(message.name, Failure.of(error))
    except LookupError:
        return RemoteReceipt(message.name, is_gone=True)
    return RemoteReceipt(message.name)
