"""The Lua that the server runs: every step of the delivery promise that must not be torn apart.

Each script names its keys, all of one line and so of one cluster slot. `allow-oom`: at `maxmemory` they free more than
they add. Entries that were trimmed while pending are never touched with XCLAIM, which would forget them silently.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Final

_HEAD = "#!lua flags=allow-oom\n"


@dataclass(frozen=True, slots=True)
class Script:
    """A script and the digest that the server knows it by."""

    source: str
    sha: str


def _script(body: str) -> Script:
    source = _HEAD + body
    return Script(source, hashlib.sha1(source.encode()).hexdigest())


# `delivered(frames, group)` is the last entry that the group has handed out, "0-0" where there is no group.
_DELIVERED = """
local function delivered(frames, group)
  for _, row in ipairs(redis.call('XINFO', 'GROUPS', frames)) do
    local about = {}
    for i = 1, #row, 2 do about[row[i]] = row[i + 1] end
    if about.name == group then return about['last-delivered-id'] end
  end
  return '0-0'
end
"""

# The marks of kept frames (see docs/wire.md): members of a sorted set, all of score 0, so in the order of their names,
# which are entry ids filled up with zeros. The first says that everything up to it has ended, each other that this
# entry has. `has_ended(marks, entry)` is whether an entry is covered.
_MARKS = """
local ORIGIN = string.rep('0', 20) .. '-' .. string.rep('0', 20)
local function mark(id)
  local ms, seq = string.match(id, '(%d+)-(%d+)')
  return string.rep('0', 20 - #ms) .. ms .. '-' .. string.rep('0', 20 - #seq) .. seq
end
local function has_ended(marks, entry)
  local first = redis.call('ZRANGE', marks, 0, 0)[1]
  return first and (mark(entry) <= first or redis.call('ZSCORE', marks, mark(entry)))
end
"""

# KEYS frames, marks; ARGV group. Create the group where it is missing: from the stream's beginning, or after the kept
# frames that have all ended. Marks beyond the stream's last id are those of a stream that was deleted: they go.
# -> {seconds, microseconds}
OPEN: Final = _script(
    _MARKS
    + """
local frames, marks, group = KEYS[1], KEYS[2], ARGV[1]
local first, last = redis.call('ZRANGE', marks, 0, 0)[1], redis.call('ZRANGE', marks, -1, -1)[1]
if first then
  local about, row = {}, redis.call('EXISTS', frames) == 1 and redis.call('XINFO', 'STREAM', frames) or {}
  for i = 1, #row, 2 do about[row[i]] = row[i + 1] end
  if mark(about['last-generated-id'] or '0-0') < last then
    redis.call('DEL', marks)
    first = nil
  end
end
local start = first and string.gsub(first, '0*(%d+)-0*(%d+)', '%1-%2') or '0'
local made = redis.pcall('XGROUP', 'CREATE', frames, group, start, 'MKSTREAM')
if made.err and not string.find(made.err, 'BUSYGROUP') then return made end
return redis.call('TIME')
"""
)

# KEYS frames, marks, results or dead; ARGV group, entry, maxlen (0: none), keep (0 or 1), field, value, ...
# -> 1 where this call ended the frame, 0 where it was no longer pending, or had ended under a group that is gone.
# The empty calls come first: a user without the right to acknowledge, delete or mark must fail before the publish.
# All that was delivered before the oldest pending entry has ended, and the marks up to it become one.
END: Final = _script(
    _MARKS
    + _DELIVERED
    + """
local frames, marks, out, group, entry, keep = KEYS[1], KEYS[2], KEYS[3], ARGV[1], ARGV[2], ARGV[4] == '1'
if #redis.call('XPENDING', frames, group, entry, entry, 1) == 0 then return 0 end
redis.call('XACK', frames, group, '0-0')
if has_ended(marks, entry) then
  redis.call('XACK', frames, group, entry)
  return 0
end
if keep then
  redis.call('ZADD', marks, 'XX', 0, ORIGIN)
  redis.call('ZREMRANGEBYLEX', marks, '(+', '(+')
else
  redis.call('XDEL', frames, '0-0')
end
if ARGV[3] == '0' then
  redis.call('XADD', out, '*', unpack(ARGV, 5))
else
  redis.call('XADD', out, 'MAXLEN', '~', ARGV[3], '*', unpack(ARGV, 5))
end
redis.call('XACK', frames, group, entry)
if not keep then
  redis.call('XDEL', frames, entry)
  return 1
end
if redis.call('EXISTS', marks) == 0 then redis.call('ZADD', marks, 0, ORIGIN) end
redis.call('ZADD', marks, 0, mark(entry))
local oldest = redis.call('XPENDING', frames, group)[2]
local up_to = oldest and '(' .. mark(oldest) or '[' .. mark(delivered(frames, group))
local first = redis.call('ZREVRANGEBYLEX', marks, up_to, '-', 'LIMIT', 0, 1)[1]
if first then redis.call('ZREMRANGEBYLEX', marks, '-', '(' .. first) end
return 1
"""
)

# KEYS frames; ARGV group, consumer, start, count.
# -> {{entry, deliveries, fields}, ...} of what is pending for this consumer: deliveries whose reply was lost.
OWN: Final = _script("""
local items = {}
for _, p in ipairs(redis.call('XPENDING', KEYS[1], ARGV[1], ARGV[3], '+', ARGV[4], ARGV[2])) do
  local found = redis.call('XRANGE', KEYS[1], p[1], p[1])
  items[#items + 1] = {p[1], p[4], found[1] and found[1][2]}
end
return items
""")

# KEYS frames; ARGV group, consumer, idle ms, most entries, max deliveries, suspect (0 or 1).
# -> {seconds, microseconds, waiting, {{entry, delivery, fields or nil}, ...}}
# Of the idle entries, those handed back (deliveries 0: never begun) are claimed as fresh, trimmed ones are reported as
# they are, and exhausted ones keep their count and are reported as one delivery more. Of the suspects (an earlier
# consumer failed on them) one is claimed where it is asked for and nothing fresh came with it; `waiting` says that
# some may be left.
CLAIM: Final = _script("""
local frames, group, consumer, idle = KEYS[1], ARGV[1], ARGV[2], ARGV[3]
local most, limit, suspect = tonumber(ARGV[4]), tonumber(ARGV[5]), ARGV[6] == '1'
local time, items, waiting = redis.call('TIME'), {}, 0
local function claim(entry, count)
  redis.call('XCLAIM', frames, group, consumer, 0, entry, 'RETRYCOUNT', count, 'JUSTID')
end
for _, p in ipairs(redis.call('XPENDING', frames, group, 'IDLE', idle, '-', '+', 100)) do
  if #items >= most then break end
  local entry, deliveries = p[1], p[4]
  local found = redis.call('XRANGE', frames, entry, entry)
  local fields = found[1] and found[1][2]
  if not fields then
    items[#items + 1] = {entry, deliveries, false}
  elseif deliveries == 0 then
    claim(entry, 1)
    suspect = false
    items[#items + 1] = {entry, 1, fields}
  elseif deliveries >= limit then
    claim(entry, deliveries)
    items[#items + 1] = {entry, deliveries + 1, fields}
  else
    waiting = 1
    if suspect then
      claim(entry, deliveries + 1)
      items[#items + 1] = {entry, deliveries + 1, fields}
      break
    end
  end
end
return {time[1], time[2], waiting, items}
""")

# KEYS frames; ARGV group, consumer, entry. -> 1 renewed or trimmed (nothing to renew), 0 another's or nobody's.
RENEW: Final = _script("""
local frames, group, consumer, entry = KEYS[1], ARGV[1], ARGV[2], ARGV[3]
if #redis.call('XPENDING', frames, group, entry, entry, 1, consumer) == 0 then return 0 end
if #redis.call('XRANGE', frames, entry, entry) == 1 then
  redis.call('XCLAIM', frames, group, consumer, 0, entry, 'JUSTID')
end
return 1
""")

# KEYS frames; ARGV group, consumer, idle ms, entry, deliveries before this one. Hand back what was not begun.
RELEASE: Final = _script("""
local frames, group, consumer, entry = KEYS[1], ARGV[1], ARGV[2], ARGV[4]
if #redis.call('XPENDING', frames, group, entry, entry, 1, consumer) == 0 then return 0 end
if #redis.call('XRANGE', frames, entry, entry) == 0 then return 0 end
redis.call('XCLAIM', frames, group, consumer, 0, entry, 'IDLE', ARGV[3], 'RETRYCOUNT', ARGV[5], 'JUSTID')
return 1
""")

# KEYS frames; ARGV group, consumer, idle ms. -> consumers removed: those of that name, or any other that is as idle,
# where nothing is pending for them. Idle ms -1: only the named one.
SWEEP: Final = _script("""
local frames, group, own, idle, removed = KEYS[1], ARGV[1], ARGV[2], tonumber(ARGV[3]), 0
for _, row in ipairs(redis.call('XINFO', 'CONSUMERS', frames, group)) do
  local consumer = {}
  for i = 1, #row, 2 do consumer[row[i]] = row[i + 1] end
  local leaves = consumer.name == own
  if idle >= 0 then leaves = consumer.name ~= own and consumer.idle >= idle end
  if leaves and consumer.pending == 0 then
    redis.call('XGROUP', 'DELCONSUMER', frames, group, consumer.name)
    removed = removed + 1
  end
end
return removed
""")

# `backlog(frames, marks, group)` is how many entries are still to end: all of them, or where frames are kept those that
# are pending and those that the group has not handed out (its lag, nil while the server cannot tell).
LUA_BACKLOG: Final = """
local function backlog(frames, marks, group)
  local length = redis.call('XLEN', frames)
  if length == 0 or redis.call('EXISTS', marks) == 0 then return length end
  for _, row in ipairs(redis.call('XINFO', 'GROUPS', frames)) do
    local about = {}
    for i = 1, #row, 2 do about[row[i]] = row[i + 1] end
    if about.name == group and about.lag then return math.min(length, about.lag + about.pending) end
  end
  return length
end
"""

# KEYS frames, marks; ARGV group. -> entries still to end.
BACKLOG: Final = _script(LUA_BACKLOG + "return backlog(KEYS[1], KEYS[2], ARGV[1])")

# KEYS frames; ARGV group, maxlen, most entries. -> {entries removed unread, entries still over maxlen}
# Oldest first; what a consumer holds is passed over: it ends soon, and as a result.
TRIM: Final = _script(
    _DELIVERED
    + """
local frames, group = KEYS[1], ARGV[1]
local over = redis.call('XLEN', frames) - tonumber(ARGV[2])
local budget, unread, start = tonumber(ARGV[3]), 0, '-'
if over <= 0 then return {0, 0} end
local function parts(id)
  local ms, seq = string.match(id, '(%d+)-(%d+)')
  return tonumber(ms), tonumber(seq)
end
local read_ms, read_seq = parts(delivered(frames, group))
while over > 0 and budget > 0 do
  budget = budget - 1
  local found = redis.call('XRANGE', frames, start, '+', 'COUNT', 1)
  if #found == 0 then break end
  local entry = found[1][1]
  local ms, seq = parts(entry)
  local read = ms < read_ms or (ms == read_ms and seq <= read_seq)
  if not read or #redis.call('XPENDING', frames, group, entry, entry, 1) == 0 then
    redis.call('XDEL', frames, entry)
    over = over - 1
    if not read then unread = unread + 1 end
  end
  start = '(' .. entry
end
return {unread, over}
"""
)

# KEYS frames, marks, results, dead; ARGV group.
# -> {frames ever added, frames still to end, results ever added, dead letters ever added, frames are kept (0 or 1)},
# nothing where there is no stream of frames.
COUNTS: Final = _script(
    LUA_BACKLOG
    + """
local function added(key)
  if redis.call('EXISTS', key) == 0 then return 0 end
  local about, row = {}, redis.call('XINFO', 'STREAM', key)
  for i = 1, #row, 2 do about[row[i]] = row[i + 1] end
  return about['entries-added']
end
local frames, marks, results, dead = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
if redis.call('EXISTS', frames) == 0 then return {} end
local kept = redis.call('EXISTS', marks)
return {added(frames), backlog(frames, marks, ARGV[1]), added(results), added(dead), kept}
"""
)

# KEYS frames; ARGV entry, ... -> those of the entries that are there.
PRESENT: Final = _script("""
local found = {}
for _, entry in ipairs(ARGV) do
  if #redis.call('XRANGE', KEYS[1], entry, entry) == 1 then found[#found + 1] = entry end
end
return found
""")

# KEYS frames; ARGV start, count. -> the ids of the next entries, without their pictures.
IDS: Final = _script("""
local ids = {}
for _, found in ipairs(redis.call('XRANGE', KEYS[1], ARGV[1], '+', 'COUNT', ARGV[2])) do ids[#ids + 1] = found[1] end
return ids
""")

ALL: Final = (OPEN, END, OWN, CLAIM, RENEW, RELEASE, SWEEP, BACKLOG, TRIM, COUNTS, PRESENT, IDS)
