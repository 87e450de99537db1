--[[
reclaim: take over what is due (parked entries whose time has come) and what was abandoned (entries of
consumers silent for longer than the lease). Failed and crashed work come back by this one path.
Consumers that hold nothing and were not heard of for ten leases are forgotten on the way.

KEYS[1] stream   KEYS[2] due times (ZSET)
ARGV[1] group    ARGV[2] the claiming consumer   ARGV[3] lease ms   ARGV[4] most entries to take

Returns per entry taken: {id, fields, delivery count}.
]]
local stream, due, group, me, lease = KEYS[1], KEYS[2], ARGV[1], ARGV[2], tonumber(ARGV[3])
local room, taken = tonumber(ARGV[4]), {}

local function take(id, min_idle, deliveries)
  -- An entry deleted behind our back is dropped from the pending list by XCLAIM itself (Redis 7.0+).
  local entry = redis.call('XCLAIM', stream, group, me, min_idle, id)[1]
  if entry then taken[#taken + 1] = {entry[1], entry[2], deliveries + 1} end
end

for _, id in ipairs(redis.call('ZRANGE', due, '-inf', now_ms(), 'BYSCORE', 'LIMIT', 0, room)) do
  redis.call('ZREM', due, id)
  local consumer, deliveries = holder(stream, group, id)
  if consumer then take(id, 0, deliveries) end -- else a zombie settled it while it was parked
end

for _, info in ipairs(redis.call('XINFO', 'CONSUMERS', stream, group)) do
  local name, pending, idle = info[2], info[4], info[6]
  if not is_parked(name) then
    if pending > 0 and #taken < room then
      local stale = redis.call('XPENDING', stream, group, 'IDLE', lease, '-', '+', room - #taken, name)
      for _, entry in ipairs(stale) do take(entry[1], lease, entry[4]) end
    elseif pending == 0 and idle > 10 * lease and name ~= me then
      redis.call('XGROUP', 'DELCONSUMER', stream, group, name)
    end
  end
end
return taken
