"""The store that several replicas share: logs in Redis, written by the replica that runs them.

The way of a chunk: `writer` sends it by a script of `scripts`; on another replica `pubsub` hears
that there is news, `reader` reads it and `remote_log` hands it to whoever follows there.

- **A claim, a lease and a session fence every write.** A script writes only for the claim that the
  record names, and only while the replica's lease holds the session of the day. So a replica that
  slept cannot undo what others saw, and a command that Redis takes up late, from a connection long
  given up, does nothing.
- **Every script may be sent twice.** A connection that was cut is opened anew and its batch sent
  again. Who answers then may have restarted with older data, so each reconnection begins another
  session, in which writers verify their records instead of remembering what arrived; a write for
  which Redis holds less than it should is refused until then.
- **A record names the session in which its writer verified it.** A running record of a session that
  is over, some time after the next one began, is one that its replica does not run: `lost`.
- **A reply that says "not me, not now" is an outage** (`failures.will_pass`), and its connection
  is left: after a fail-over, the old primary keeps it open and refuses for ever.
- **`MOVED` is an outage, too**, of some milliseconds: leases may have run out while the slot moved,
  so a new session begins at its new owner (`route`), in which nobody is judged before his time.
- **`ASK` is not followed.** Where half of a slot has moved, a script on either side would miss keys
  that are on the other, and take a lease that has not arrived yet for one that ran out.
- **Pub/sub is the classic one, at the owner of the slot.** There everything is published, so it is
  heard whether a cluster broadcasts or routes channels like keys; sharded channels need Redis 7.
- **A token is renewed in band** on connections that take commands. One that subscribes takes none
  on RESP 2: it is replaced, and the old one is heard until the new one listens.
- **Pub/sub only hints.** It delivers at most once, so requests are repeated until their effect
  shows, and remote logs look once a second without any news. Data travels in the stream only.
- **Progress is a field of the record, and no news.** It is written with chunks or by itself, at
  most ten times a second, with the end at the latest, and anew in each session. Remote logs are
  neither woken for it nor sent it; whoever polls looks at Redis.
- **A follower elsewhere is a `RemoteFollower` in the owner's log**, whose place is how far chunks
  have come: leaving and the pace of the stream need no case of their own for it.
- **Redis was away, or we were?** A replica that slept past its lease knows it from its own clock
  (`Lease.watch`). A lease that is missing although we were awake says that Redis lost it. And
  nobody judges others before Redis has been up for the time of a lease.
- **An entry of the stream holds many chunks**, as one JSON array: a command takes about 13 µs of a
  replica's CPU time, a chunk about 2. Commands are packed by hiredis, in C, all of a batch into one
  message; redis-py's packing took a fifth of the time of an invocation.
"""
