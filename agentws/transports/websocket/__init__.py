"""Sockets: accepted, served frame by frame or by the agent itself, closed, and told of in the log.

The way of a message: `framed_ws` reads it and starts what it asks for; what a followed log has to
say becomes frames in `following`, which `frame_writer` sends at the pace of the peer, over its
`connection`.

- **A log is written by one and followed by many; there is no queue per follower.** A follower is a
  position. It is woken by a callback, not by a task: the writer needs none while its peer keeps up,
  so a stream costs a socket no task, and an idle socket costs little.
- **Messages are framed here** (`data_frames`: unmasked, uncompressed, ten lines). aiohttp makes one
  system call per message, which for small chunks costs more than all the rest. With compression
  negotiated, aiohttp's own sending is used.
- **Long messages go in fragments, each when the peer has taken the one before**, so that a ping is
  answered amid them. The size of a batch, which is known anyway, tells whether one could be long.
- **Messages that arrived before a connection was lost are acted on**, for which the reader sets
  aside what aiohttp would drop.
- **A socket has its turn, and 32 messages are a turn.** aiohttp hands out messages that wait
  without ever yielding to the event loop, so one peer that floods would be the only one that is
  served; on raw sockets, where aiohttp answers pings by itself, too.
- **One clock pings all sockets** (`rounds`); a timer each took more memory than the socket's other
  parts of ours.
- **A raw socket is listened to only while its handler does not read** (`raw_listener`), which the
  same kind of clock notices. A task that always read would take memory for every idle socket, and a
  detour for every message.
"""
