"""What is kept in Redis under the names of `keys`, and the scripts that change it atomically.

An invocation is a hash (its record, who writes it, which entries are held) and a stream of its
entries, chunks nearly all of them. Its owner and its session have sorted lists of their
invocations, and the session one of those that run. All keys share a hash tag, and so a slot of a
cluster: a script may then reach for the lease of whatever replica a record names, and for the lists
that an invocation is in. Redis 6.2 or newer.

A writer is known by its *claim* (replica and number) and holds a *lease*, a key that expires unless
the replica renews it; its value is the *session*, which is another each time the replica has to
begin anew, and tells when it began. Scripts write only for the claim that the record names and
under the session of the day, so that whatever was sent in an earlier session and arrives late does
nothing. All of them may be sent twice: a second time changes nothing.

A record names the session in which its writer has last made sure of it. At the beginning of a
session, a replica makes sure of all that it runs. So a running record of an earlier session is one
that its replica does not run: Redis came back with data of some time ago.
"""

from hashlib import sha1
from typing import Final


class Script:
    """A script that Redis runs, and the name under which it is known there."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.digest = sha1(text.encode(), usedforsecurity=False).hexdigest().encode()


_NOW: Final = """
local function now()
    local time = redis.call('TIME')
    return time[1] * 1000 + math.floor(time[2] / 1000)
end
"""

_ABANDONED: Final = """
local function is_abandoned(root, replica, session, patience)
    local current = redis.call('GET', root .. 'lease:' .. (replica or ''))
    if not current then return true end
    local began = tonumber(current:match(':(%d+)$') or 0)
    return current ~= session and began + tonumber(patience) <= now()
end
"""

_LISTED: Final = """
-- What others have put under the keys of lists is no reason to refuse an invocation: so pcall.
local function enlist(root, record, id, ttl)
    local known = redis.call('HMGET', record, 'owner', 'session_of', 'created_at', 'status')
    if not known[1] then return end
    for _, name in ipairs({known[1], known[2]}) do
        redis.pcall('ZADD', root .. 'list:' .. name, known[3], id)
        redis.call('PEXPIRE', root .. 'list:' .. name, ttl)
    end
    if known[4] == 'running' then
        redis.pcall('ZADD', root .. 'turns:' .. known[2], known[3], id)
        redis.call('PEXPIRE', root .. 'turns:' .. known[2], ttl)
    end
end
local function sweep(root, list, moment)
    -- Each claim adds one and looks at a few, the oldest and some anywhere: so the greater part of
    -- a list is always of what is there.
    local count = redis.pcall('ZCARD', list)
    if type(count) ~= 'number' or count == 0 then return end
    local anywhere = moment % count
    for _, first in ipairs({0, anywhere}) do
        for _, id in ipairs(redis.call('ZRANGE', list, first, first + 1)) do
            if redis.call('EXISTS', root .. 'record:' .. id) == 0 then
                redis.call('ZREM', list, id)
            end
        end
    end
end
"""

_LEAVE_TURN: Final = """
local function leave_turn(root, record, id)
    local name = redis.call('HGET', record, 'session_of')
    if name then redis.pcall('ZREM', root .. 'turns:' .. name, id) end
end
"""

_MARK_LOST: Final = (
    _NOW
    + _LEAVE_TURN
    + """
local function mark_lost(root, id, record, chunks, news, retention, linger)
    leave_turn(root, record, id)
    redis.call('HSET', record, 'status', 'lost', 'lost_at', string.format('%d', now()),
        'gone_at', string.format('%d', now() + tonumber(retention)))
    redis.call('PEXPIRE', record, linger)
    redis.call('PEXPIRE', chunks, linger)
    redis.call('PUBLISH', news, '')
end
"""
)

CLAIM: Final = Script(
    _NOW
    + _ABANDONED
    + _LISTED
    + """
local record, chunks, lease = KEYS[1], KEYS[2], KEYS[3]
local claim, session, replica, ttl, birth, first, last, root, id, owner, session_of, created_at,
    if_busy, may_judge, patience = unpack(ARGV)
if redis.call('GET', lease) ~= session then return {'unleased'} end
local known = redis.call('HMGET', record, 'claim', 'status', 'gone_at', 'last')
local function others()
    local found = {}
    if if_busy == 'parallel' then return found end
    for _, other in ipairs(redis.pcall('ZREVRANGE', root .. 'turns:' .. session_of, 0, -1)) do
        local its = redis.call('HMGET', root .. 'record:' .. other, 'status', 'replica', 'session')
        local is_given_up = may_judge == '1' and is_abandoned(root, its[2], its[3], patience)
        if other ~= id and its[1] == 'running' and not is_given_up then
            table.insert(found, other)
        end
    end
    return found
end
if known[1] == claim then
    if known[2] == 'lost' then return {'lost'} end
    redis.call('HSET', record, 'session', session)
    redis.call('PEXPIRE', record, ttl)
    enlist(root, record, id, ttl)
    return {'claimed', known[4], others()}
end
if redis.call('EXISTS', record) == 1 and not (known[3] and tonumber(known[3]) <= now()) then
    return {'taken'}
end
local rivals = others()
if if_busy == 'reject' and rivals[1] then return {'busy', rivals[1]} end
redis.call('DEL', record, chunks)
redis.call('HSET', record, 'claim', claim, 'replica', replica, 'session', session,
    'status', 'running', 'record', birth, 'first', first, 'last', last,
    'owner', owner, 'session_of', session_of, 'created_at', created_at)
redis.call('PEXPIRE', record, ttl)
enlist(root, record, id, ttl)
sweep(root, root .. 'list:' .. owner, now())
sweep(root, root .. 'list:' .. session_of, now())
sweep(root, root .. 'turns:' .. session_of, now())
return {'new', '0', rivals}
"""
)
"""Take an id, or make sure of it.

`new`, or `claimed` before by the same claim, both with the number of the last entry written and the
other running invocations of the session, the newest first, unless they do not matter; `lost`;
`taken`; or `busy` with one of the session."""

WRITE: Final = Script(
    _NOW
    + _LEAVE_TURN
    + _LISTED
    + """
local record, chunks, lease = KEYS[1], KEYS[2], KEYS[3]
local claim, session, news, ttl, after, first, last, kind, data, final, result, retention, root,
    id, expiry, awaiting, progress = unpack(ARGV)
local known = redis.call('HMGET', record, 'claim', 'status', 'last', 'session')
if not known[1] then return 'doubtful' end
if known[1] ~= claim or known[2] == 'lost' then return 'lost' end
if known[2] == 'ended' then return 'written' end
if redis.call('GET', lease) ~= session then return 'unleased' end
if known[4] ~= session or tonumber(known[3]) < tonumber(after) then return 'doubtful' end
if awaiting ~= '' then redis.call('HSET', record, 'awaiting', awaiting) end
if progress then redis.call('HSET', record, 'progress', progress) end
if final == '' and tonumber(last) <= tonumber(known[3]) then return 'written' end
if data ~= '' and tonumber(last) > tonumber(known[3]) then
    local place = last .. '-0'
    local answer = redis.pcall('XADD', chunks, place, kind, data)
    if type(answer) == 'table' and (answer.err:find('WRONGTYPE') or answer.err:find('smaller')) then
        redis.call('DEL', chunks)  -- it is not our stream, or others wrote into it
        redis.call('XADD', chunks, place, kind, data)
    elseif type(answer) == 'table' then
        return answer
    end
    if redis.call('PTTL', chunks) < 0 then redis.call('PEXPIRE', chunks, ttl) end
end
redis.call('XTRIM', chunks, 'MINID', first .. '-0')
redis.call('HSET', record, 'first', first, 'last', last)
if final ~= '' then
    redis.call('HSET', record, 'status', 'ended', 'record', final,
        'gone_at', string.format('%d', now() + tonumber(retention)))
    if result ~= '' then redis.call('HSET', record, 'result', result) end
    redis.call('HDEL', record, 'awaiting')
    leave_turn(root, record, id)
    enlist(root, record, id, expiry)
    redis.call('PEXPIRE', record, ttl)
    redis.call('PEXPIRE', chunks, ttl)
end
redis.call('PUBLISH', news, '')
return 'written'
"""
)
"""Add entries of one kind, drop those before `first`, end the record if there is a final one.

Where there are `progress` and `awaiting`, they are put into the record; progress alone is no news
for who follows.

`written`; `doubtful` if the writer must first make sure of the record, which is gone, or older than
what was written to it; `lost` if others have given the writer up; `unleased` if the replica must
first renew its lease. `after` is the number of the last entry that was written.
"""

READ: Final = Script(
    _MARK_LOST
    + _ABANDONED
    + """
local record, chunks = KEYS[1], KEYS[2]
local root, id, news, after, count, may_lose, also_gone, retention, linger,
    patience = unpack(ARGV)
local wanted = {'status', 'record', 'replica', 'first', 'last', 'result', 'lost_at', 'gone_at',
    'session', 'awaiting'}
if after == '' then table.insert(wanted, 'progress') end
local function fields()
    return redis.call('HMGET', record, unpack(wanted))
end
local found = fields()
if not found[1] then return {} end
local is_found_lost = 0
if found[1] == 'running' and may_lose == '1'
        and is_abandoned(root, found[3], found[9], patience) then
    mark_lost(root, id, record, chunks, news, retention, linger)
    found = fields()
    is_found_lost = 1
end
if also_gone == '0' and found[8] and tonumber(found[8]) <= now() then return {} end
local entries = {}
if after ~= '' then
    entries = redis.call('XRANGE', chunks, '(' .. after .. '-0', '+', 'COUNT', count)
end
return {found, entries, is_found_lost}
"""
)
"""Return what is known of an invocation, the entries with chunks after a number, and 1 where it is
lost since just now, else 0.

Without a number there are no entries, but the progress: who copies chunks need not be sent that
again and again.

Where `may_lose` says so, a running one is marked as lost whose replica has no lease, or has begun a
session `patience` milliseconds ago and not made sure of it since.
"""

LOSE: Final = Script(
    _MARK_LOST
    + """
local record, chunks = KEYS[1], KEYS[2]
local claim, news, retention, linger, root, id = unpack(ARGV)
local known = redis.call('HMGET', record, 'claim', 'status')
if known[1] == claim and known[2] == 'running' then
    mark_lost(root, id, record, chunks, news, retention, linger)
end
"""
)
"""Mark an invocation as lost that its own replica gives up."""

RELEASE: Final = Script(
    _LEAVE_TURN
    + """
if redis.call('HGET', KEYS[1], 'claim') == ARGV[1] then
    leave_turn(ARGV[2], KEYS[1], ARGV[3])
    redis.call('DEL', KEYS[1], KEYS[2])
end
"""
)
"""Give back an id that was claimed in vain, or forget an invocation before its time."""

KEEP: Final = Script(
    _LISTED
    + """
if redis.call('HGET', KEYS[1], 'claim') == ARGV[1] and redis.call('HGET', KEYS[1], 'status')
        == 'running' then
    redis.call('PEXPIRE', KEYS[1], ARGV[2])
    redis.call('PEXPIRE', KEYS[2], ARGV[2])
    enlist(ARGV[3], KEYS[1], ARGV[4], ARGV[2])
end
"""
)
"""Put off the expiry of a running invocation, and of the lists that it is in."""

LIST: Final = Script(
    _NOW
    + """
local list = KEYS[1]
local root, newest, after, limit = unpack(ARGV)
local found = {}
local ids = redis.call('ZREVRANGEBYSCORE', list, newest, '-inf', 'WITHSCORES', 'LIMIT', 0, limit)
for place = 1, #ids, 2 do
    local id, score = ids[place], ids[place + 1]
    if after == '' or tonumber(score) ~= tonumber(newest) or id < after then
        local its = redis.call('HMGET', root .. 'record:' .. id, 'status', 'record', 'replica',
            'first', 'last', 'result', 'lost_at', 'gone_at', 'session', 'awaiting', 'progress')
        if its[1] and not (its[8] and tonumber(its[8]) <= now()) then
            its[6] = false
            table.insert(found, {id, its})
        end
    end
end
return {found, ids[#ids - 1] or '', ids[#ids] or '', #ids / 2}
"""
)
"""Return what is known of some invocations of a list, up to `limit`, the newest first: from those
created at `newest` on, and of these only such as are beyond `after`. Then the last id that was
looked at, its score, and how many were."""

ALL: Final = (CLAIM, WRITE, READ, LOSE, RELEASE, KEEP, LIST)
