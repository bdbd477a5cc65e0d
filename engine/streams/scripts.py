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


# KEYS frames; ARGV group. Create the group from the stream's beginning where it is missing. -> {seconds, microseconds}
OPEN: Final = _script("""
local made = redis.pcall('XGROUP', 'CREATE', KEYS[1], ARGV[1], '0', 'MKSTREAM')
if made.err and not string.find(made.err, 'BUSYGROUP') then return made end
return redis.call('TIME')
""")

# KEYS frames, results or dead; ARGV group, entry, maxlen (0: none), keep (0 or 1), field, value, ...
# -> 1 where this call ended the frame, 0 where it was no longer pending.
# The two empty calls come first: a user without the right to acknowledge or delete must fail before the publish.
END: Final = _script("""
local frames, out, group, entry = KEYS[1], KEYS[2], ARGV[1], ARGV[2]
if #redis.call('XPENDING', frames, group, entry, entry, 1) == 0 then return 0 end
redis.call('XACK', frames, group, '0-0')
if ARGV[4] == '0' then redis.call('XDEL', frames, '0-0') end
if ARGV[3] == '0' then
  redis.call('XADD', out, '*', unpack(ARGV, 5))
else
  redis.call('XADD', out, 'MAXLEN', '~', ARGV[3], '*', unpack(ARGV, 5))
end
redis.call('XACK', frames, group, entry)
if ARGV[4] == '0' then redis.call('XDEL', frames, entry) end
return 1
""")

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

# KEYS frames; ARGV group, maxlen, most entries. -> {entries removed unread, entries still over maxlen}
# Oldest first; what a consumer holds is passed over: it ends soon, and as a result.
TRIM: Final = _script("""
local frames, group = KEYS[1], ARGV[1]
local over = redis.call('XLEN', frames) - tonumber(ARGV[2])
local budget, unread, start = tonumber(ARGV[3]), 0, '-'
if over <= 0 then return {0, 0} end
local function parts(id)
  local ms, seq = string.match(id, '(%d+)-(%d+)')
  return tonumber(ms), tonumber(seq)
end
local read_ms, read_seq = 0, 0
for _, row in ipairs(redis.call('XINFO', 'GROUPS', frames)) do
  local about = {}
  for i = 1, #row, 2 do about[row[i]] = row[i + 1] end
  if about.name == group then read_ms, read_seq = parts(about['last-delivered-id']) end
end
while over > 0 and budget > 0 do
  budget = budget - 1
  local found = redis.call('XRANGE', frames, start, '+', 'COUNT', 1)
  if #found == 0 then break end
  local entry = found[1][1]
  local ms, seq = parts(entry)
  local delivered = ms < read_ms or (ms == read_ms and seq <= read_seq)
  if not delivered or #redis.call('XPENDING', frames, group, entry, entry, 1) == 0 then
    redis.call('XDEL', frames, entry)
    over = over - 1
    if not delivered then unread = unread + 1 end
  end
  start = '(' .. entry
end
return {unread, over}
""")

ALL: Final = (OPEN, END, OWN, CLAIM, RENEW, RELEASE, SWEEP, TRIM)
