--[[
clear: delete a bounded number of a stage's unfinished jobs: those set aside first, then those in the stream. What got
its id after the first call stays. Jobs that are with a worker stay unless told otherwise; their worker's outcome then
goes nowhere.

KEYS  the place
ARGV[1] group   ARGV[2] where to go on: '0' at first, a cursor through what is set aside, then an entry id
ARGV[3] the last id to delete ('' at first)   ARGV[4] at most, roughly   ARGV[5] 1: those with a worker too
Returns {deleted, where to go on ('' when through), the last id to delete}.
]]
local p, group, start, last, most = place(1), ARGV[1], ARGV[2], ARGV[3], tonumber(ARGV[4])
local LITTLE, BYTES = 2, 4 * 2 ^ 20 -- read at a time; at most in a call, and what goes over
if last == '' then
  local info = redis.pcall('XINFO', 'STREAM', p.stream)
  last = info.err and '0-1' or field_of(info, 'last-generated-id')
end

local function parts(id)
  local ms, seq = string.match(id, '(%d+)-(%d+)')
  return tonumber(ms), tonumber(seq)
end

local function is_newer(id)
  local ms, seq = parts(id)
  local last_ms, last_seq = parts(last)
  return ms > last_ms or (ms == last_ms and seq > last_seq)
end

-- What was set aside, a little at a time: its envelopes come with the ids, and each may be megabytes.
local function clear_aside()
  local deleted, bytes = 0, BYTES
  repeat
    local found, aside = redis.call('HSCAN', p.later, start, 'COUNT', LITTLE), {}
    start = found[1]
    for f = 1, #found[2], 2 do
      bytes = bytes - #found[2][f + 1]
      if not is_newer(found[2][f]) then aside[#aside + 1] = found[2][f] end
    end
    if #aside > 0 then
      redis.call('HDEL', p.later, unpack(aside))
      redis.call('ZREM', p.delays, unpack(aside))
      for _, id in ipairs(aside) do tell(p, id, 'cancelled') end
    end
    -- A step may find none, or a whole bucket.
    deleted, most = deleted + #aside, most - math.max(1, #found[2] / 2)
  until start == '0' or most <= 0 or bytes <= 0
  return {deleted, start == '0' and '-' or start, last}
end

-- To the stream's end: what was set aside may have got into it since the first call, and is no newer for that.
local function clear_stream()
  local deleted, bytes = 0, BYTES
  while most > 0 and bytes > 0 do
    local entries = redis.call('XRANGE', p.stream, start, '+', 'COUNT', LITTLE)
    for _, entry in ipairs(entries) do
      local id = entry[1]
      local job, consumer = field_of(entry[2], 'i') or id, holder(p.stream, group, id)
      bytes = bytes - #(field_of(entry[2], 'e') or '')
      if not is_newer(job) and (not consumer or is_parked(consumer) or ARGV[5] == '1') then
        redis.call('ZREM', p.due, id)
        redis.call('DEL', p.job .. job)
        -- Whatever was held back as long is deleted already: any limit but 0 keeps the tenant's account right.
        finish(p, group, id, 1)
        tell(p, job, 'cancelled')
        deleted = deleted + 1
      end
    end
    if #entries < LITTLE then return {deleted, '', last} end
    start, most = '(' .. entries[#entries][1], most - LITTLE
  end
  return {deleted, start, last}
end

if string.find(start, '^%d+$') then return clear_aside() end
return clear_stream()
