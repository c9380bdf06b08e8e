"""The names of all keys and channels in Redis."""

from agentws.protocol.encoding import encode


class Keys:
    """The keys and channels of one service: whatever has another prefix belongs to others.

    All of them share a hash tag, and so a slot of a cluster.
    """

    def __init__(self, prefix: str) -> None:
        self.root = b"{%b}:" % prefix.encode()
        """What all keys and channels begin with."""

    def record(self, invocation_id: str) -> bytes:
        """Return the key of the hash of an invocation."""
        return self.root + b"record:" + invocation_id.encode()

    def chunks(self, invocation_id: str) -> bytes:
        """Return the key of the stream of an invocation's chunks.

        Each entry holds a JSON array of chunks; its id is the number of the last of them.
        """
        return self.root + b"chunks:" + invocation_id.encode()

    def list(self, name: bytes) -> bytes:
        """Return the key of the list of an owner's invocations, or a session's.

        It is sorted by the time of their creation; what it names may be gone already. Beside it,
        under `turns:`, scripts keep one of what runs in a session.
        """
        return self.root + b"list:" + name

    def lease(self, replica: str) -> bytes:
        """Return the key that exists as long as a replica is known to live."""
        return self.root + b"lease:" + replica.encode()

    def news(self, invocation_id: str) -> bytes:
        """Return the channel that tells of every change of an invocation."""
        return self.root + b"news:" + invocation_id.encode()

    def replica(self, replica: str) -> bytes:
        """Return the channel on which a replica is spoken to."""
        return self.root + b"replica:" + replica.encode()


def owner_name(owner: str | None) -> bytes:
    """Return what an owner's invocations are filed under; whoever has no name is one owner."""
    return encode([owner])


def session_name(owner: str | None, session_id: str) -> bytes:
    """Return what the invocations of an owner's session are filed under."""
    return encode([owner, session_id])
