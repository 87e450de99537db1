--[[
count: what stages' partitions have taken in and what they still hold, at one moment.

KEYS  a place per stage
Returns per stage {jobs ever added, unfinished ones, low-water mark it has to come down to (-1: it is open), delayed ones
that are due}.
]]
local function count(p)
  local info = redis.pcall('XINFO', 'STREAM', p.stream)
  local again, full = unpack(redis.call('HMGET', p.control, 'again', 'full'))
  local added = info.err and 0 or count_added(info, again)  -- there is no stream yet
  local due = redis.call('ZCOUNT', p.delays, '-inf', now_ms())
  return {added, depth_of(p), tonumber(full or -1), due}
end

local found = {}
for n = 1, #KEYS / 11 do found[n] = count(place(n)) end
return found
