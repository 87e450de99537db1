--[[
ages: how old the oldest work of a stage's partition is, at one moment.

Waiting counts what could run now: what nobody was given yet, since it came into the stream, and what was delayed,
backed off, was handed back or waited for a token, since it was due. Active counts what a worker holds, since it got
it, as the worker says when it renews its lease; before it first does, and after it fell silent, since the server last
heard of the entry.

KEYS  the place, then what each consumer has held longest (renew.lua)
ARGV[1] group
Returns {ms that the oldest waiting one waits, ms that the oldest active one is held}; -1: there is none.
]]
local p, noted, group, now = place(1), KEYS[12], ARGV[1], now_ms()
local FEW = 16
local waiting, active

local function older(since, than)
  if since and since <= now and (not than or since < than) then return since end
  return than
end

local function age(since)
  return since and math.floor(now - since) or -1
end

local groups = redis.pcall('XINFO', 'GROUPS', p.stream)
if groups.err then groups = {} end  -- there is no stream yet
-- A paused group stands at the end of all ids; what it had come to is remembered.
local come_to = redis.call('HGET', p.control, 'paused')
for _, info in ipairs(groups) do
  if field_of(info, 'name') == group then
    come_to = come_to or field_of(info, 'last-delivered-id')
    for _, consumer in ipairs(redis.call('XINFO', 'CONSUMERS', p.stream, group)) do
      local name, pending = consumer[2], consumer[4]
      if pending > 0 and not is_parked(name) then
        local first = redis.call('XPENDING', p.stream, group, '-', '+', 1, name)[1]
        active = older(now - first[3], active)
        local note = redis.call('HGET', noted, name)
        local id, since = string.match(note or '', '^(%S+) (%d+)$')
        if id and holder(p.stream, group, id) == name then active = older(tonumber(since), active) end
      end
    end
  end
end

local fresh = redis.call('XRANGE', p.stream, '(' .. (come_to or '0-0'), '+', 'COUNT', 1)[1]
if fresh then waiting = older(tonumber(string.match(fresh[1], '^%d+')), waiting) end
local due = redis.call('ZRANGE', p.due, '-inf', now, 'BYSCORE', 'LIMIT', 0, FEW, 'WITHSCORES')
for n = 1, #due, 2 do
  local consumer = holder(p.stream, group, due[n])
  if consumer and is_parked(consumer) then  -- else it was settled by a zombie meanwhile
    waiting = older(tonumber(due[n + 1]), waiting)
    break
  end
end
local delayed = redis.call('ZRANGE', p.delays, 0, 0, 'WITHSCORES')[2]
return {age(older(tonumber(delayed), waiting)), age(active)}
