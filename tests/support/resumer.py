"""A client that resumes, whatever befalls its connection."""

import json
import random
import struct
from typing import Any

from tests.conftest import Address, Frame
from tests.support.peers import FramedPeer

CHUNKS = 120
"""How many chunks a stream has."""

LAST = (b'"type":"stream_end"', b'"type":"error"')


class Resumer:
    """A client that is cut off after some bytes, time and again, and takes up where it was."""

    def __init__(
        self,
        server: Address,
        invocation_id: str,
        chance: random.Random,
        *,
        may_be_withdrawn: bool = False,
    ) -> None:
        """`may_be_withdrawn`: what was refused for want of Redis may have been there for a moment.

        Then the server may be known to have the invocation, and not have it any more.
        """
        self.may_be_withdrawn = may_be_withdrawn
        self.server = server
        self.invocation_id = invocation_id
        self.chance = chance
        self.numbers: list[int] = []
        self.cuts = 0
        self.is_known = False

    async def follow(self) -> str:
        """Follow the stream to its end, however often it is cut.

        Return the type of the end, or the code of the error.
        """
        while True:
            async with FramedPeer.connect(self.server) as peer:
                peer.act(invocation_id=self.invocation_id, **self.question())
                for frame in frames_of(await self.some_bytes(peer)):
                    if (end := self.take(frame)) is not None:
                        return end
                self.cut(peer)

    def question(self) -> dict[str, Any]:
        """Invoke until the server is known to have the invocation, then take up the stream."""
        if not self.is_known:
            return {"action": "invoke", "payload": CHUNKS}
        return {"action": "attach_invocation", "starting_after": len(self.numbers)}

    async def some_bytes(self, peer: FramedPeer) -> bytes:
        """Read some bytes, any number of them, so that the last frame may be cut."""
        wanted = self.chance.choice([0, 1, 60, 200, 1_000, 5_000, 20_000])
        data = b""
        while len(data) < wanted and not any(last in data for last in LAST):
            part = await peer.reader.read(self.chance.randint(1, wanted - len(data)))
            assert part, f"the server closed the connection after {data[-200:]!r}"
            data += part
        return data

    def take(self, frame: Frame) -> str | None:
        """Note a chunk; return what ends the stream."""
        assert frame["invocation_id"] == self.invocation_id
        self.is_known = True
        match frame["type"]:
            case "stream_chunk":
                self.numbers.append(frame["sequence_number"])
                assert frame["payload"] == {"number": frame["sequence_number"]}
                return None
            case "error" if frame["error"]["code"] == "already_exists":
                return None  # an invoke that was cut off before its answer had arrived after all
            case "error" if frame["error"]["code"] == "store_unavailable":
                self.is_known = bool(self.numbers)  # what it asked for was not done
                return None
            case "error" if frame["error"]["code"] == "not_found" and self.may_be_withdrawn:
                assert self.numbers == [], "what has begun to run is not withdrawn"
                self.is_known = False
                return None
            case "error":
                return str(frame["error"]["code"])
            case kind:
                return str(kind)

    def cut(self, peer: FramedPeer) -> None:
        self.cuts += 1
        if self.chance.random() < 0.5:
            peer.vanish()


def frames_of(data: bytes) -> list[Frame]:
    """Return the whole frames in the data of a server, which does not mask them."""
    frames = []
    while len(data) >= 2:
        head, length = 2, data[1]
        if length == 126 and len(data) >= 4:
            head, (length,) = 4, struct.unpack("!H", data[2:4])
        if len(data) < head + length:
            break
        frames.append(json.loads(data[head : head + length]))
        data = data[head + length :]
    return frames
