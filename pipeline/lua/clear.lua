--[[
clear: delete a bounded number of a stage's unfinished jobs: those set aside first, then those in the stream up to a
given id. Jobs that are with a worker stay unless told otherwise; their worker's outcome then goes nowhere.

KEYS  the place
ARGV[1] group   ARGV[2] first entry id to look at   ARGV[3] last one ('' for the stream's last)   ARGV[4] at most
ARGV[5] 1: those with a worker too
Returns {deleted, next entry id to look at ('' when through), last one}.
]]
local p, group, start, last, most = place(1), ARGV[1], ARGV[2], ARGV[3], tonumber(ARGV[4])
if last == '' then
  local newest = redis.call('XREVRANGE', p.stream, '+', '-', 'COUNT', 1)[1]
  last = newest and newest[1] or '0-1'
end
local aside = {}
for _, id in ipairs(redis.call('HRANDFIELD', p.later, most)) do aside[#aside + 1] = id end
if #aside > 0 then
  redis.call('HDEL', p.later, unpack(aside))
  redis.call('ZREM', p.delays, unpack(aside))
  return {#aside, start, last}
end
local deleted, entries = 0, redis.call('XRANGE', p.stream, start, last, 'COUNT', most)
for _, entry in ipairs(entries) do
  local id = entry[1]
  local consumer = holder_if_any(p.stream, group, id)
  if not consumer or is_parked(consumer) or ARGV[5] == '1' then
    redis.call('ZREM', p.due, id)
    redis.call('DEL', p.job .. (field_of(entry[2], 'i') or id))
    -- Whatever is held back was deleted before: any limit but 0 keeps the tenant's account right.
    finish(p, group, id, 1)
    deleted = deleted + 1
  end
end
if #entries < most then return {deleted, '', last} end
return {deleted, '(' .. entries[#entries][1], last}
