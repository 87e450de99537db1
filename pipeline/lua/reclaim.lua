--[[
reclaim: take over what is due (parked entries whose time has come) and what was abandoned (entries of
consumers silent for longer than the lease). Failed and crashed work come back by this one path. On the way
delayed jobs whose time has come go into the stream, and consumers that hold nothing and were not heard of for ten
leases are forgotten, as are cancellations of what ended long ago, and a stage that was full, and is no longer, takes
jobs in again. A paused stage gives nothing.

KEYS  the place, then what each consumer has held longest
ARGV[1] group   ARGV[2] the claiming consumer   ARGV[3] lease ms   ARGV[4] most entries to take
ARGV[5] the stage's tenant limit

Returns {ms until something more is due (-1: nothing is known of), entries}; an entry is {id, fields, delivery count,
the consumer it was taken from, ms since it was due}.
]]
local p, group, me, lease = place(1), ARGV[1], ARGV[2], tonumber(ARGV[3])
local room, limit, taken, now = tonumber(ARGV[4]), tonumber(ARGV[5]), {}, now_ms()
local control = redis.call('HMGET', p.control, 'paused', 'full')
p.full = control[2]
reopen(p)
if control[1] then return {-1, taken} end
local any_cancelled = redis.call('EXISTS', p.cancelled) == 1
local FEW, DAY = 16, 86400000

-- Whoever lost its lease may run what has ended, and is to hear of it; after a day nobody does. What is held is asked
-- for first: an entry comes with its envelope.
local function ended_long_ago(id)
  if tonumber(string.match(id, '^%d+')) > now - DAY then return false end
  return not (holder(p.stream, group, id) or redis.call('XRANGE', p.stream, id, id)[1])
end

if any_cancelled then
  for _, id in ipairs(redis.call('SRANDMEMBER', p.cancelled, FEW)) do
    if ended_long_ago(id) then redis.call('SREM', p.cancelled, id) end
  end
end

-- Without a limit (any more), or any entries, nobody's account can be in use: what it holds back has to go on.
if redis.call('EXISTS', p.tenants) == 1 and (limit == 0 or redis.call('XLEN', p.stream) == 0) then
  for _, tenant in ipairs(redis.call('HKEYS', p.tenants)) do
    redis.call('HDEL', p.tenants, tenant)
    while limit == 0 and move_up(p, tenant) do end
    if limit > 0 and move_up(p, tenant) then redis.call('HINCRBY', p.tenants, tenant, 1) end
  end
end

for _, id in ipairs(redis.call('ZRANGE', p.delays, '-inf', '(' .. now + 1, 'BYSCORE', 'LIMIT', 0, room)) do
  redis.call('ZREM', p.delays, id)
  local body, tenant = fetch_back(p, id)
  if body then
    admit(p, body, tenant, limit, id)
    tell(p, id, 'waiting')
  end
end

local function take(id, min_idle, consumer, deliveries, late)
  if any_cancelled and redis.call('SISMEMBER', p.cancelled, id) == 1 then
    local entry = redis.call('XRANGE', p.stream, id, id)[1]
    remember_cancelled(p, entry and field_of(entry[2], 'i') or id, deliveries)
    return finish(p, group, id, limit)
  end
  -- An entry deleted behind our back is dropped from the pending list by XCLAIM itself (Redis 7.0+).
  local entry = redis.call('XCLAIM', p.stream, group, me, min_idle, id)[1]
  if not entry then return end
  taken[#taken + 1] = {entry[1], entry[2], deliveries + 1, consumer, late}
  tell(p, field_of(entry[2], 'i') or id, 'active', deliveries + 1)
end

-- Up to the end of this very ms: of those with one time each has a fraction of it more (park.lua).
local due = redis.call('ZRANGE', p.due, '-inf', '(' .. now + 1, 'BYSCORE', 'LIMIT', 0, room, 'WITHSCORES')
for n = 1, #due, 2 do
  local id = due[n]
  redis.call('ZREM', p.due, id)
  local consumer, deliveries = holder(p.stream, group, id)
  -- Else a zombie settled it while it was parked, or its group was lost and somebody has it anew.
  if consumer and is_parked(consumer) then
    take(id, 0, consumer, deliveries, math.max(0, math.floor(now - due[n + 1])))
  end
end

for _, info in ipairs(redis.call('XINFO', 'CONSUMERS', p.stream, group)) do
  local name, pending, idle = info[2], info[4], info[6]
  if not is_parked(name) then
    if pending > 0 and #taken < room then
      local stale = redis.call('XPENDING', p.stream, group, 'IDLE', lease, '-', '+', room - #taken, name)
      for _, entry in ipairs(stale) do take(entry[1], lease, name, entry[4], 0) end
    elseif pending == 0 and idle > 10 * lease and name ~= me then
      redis.call('XGROUP', 'DELCONSUMER', p.stream, group, name)
      redis.call('HDEL', KEYS[12], name)
    end
  end
end

local next_due = -1
for _, times in ipairs({p.due, p.delays}) do
  local first = tonumber(redis.call('ZRANGE', times, 0, 0, 'WITHSCORES')[2])
  if first and (next_due < 0 or first - now < next_due) then next_due = math.max(first - now, 0) end
end
return {next_due, taken}
