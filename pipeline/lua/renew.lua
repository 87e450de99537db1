--[[
renew: the lease heartbeat. Resets the idle time of entries that are still this consumer's.

KEYS  the place
ARGV[1] group   ARGV[2] consumer   then per entry: id, its delivery count
Returns {ids that are no longer this consumer's, ids that somebody wants cancelled}.
]]
local p, group, consumer, lost, unwanted = place(1), ARGV[1], ARGV[2], {}, {}
local any_cancelled = redis.call('EXISTS', p.cancelled) == 1
for i = 3, #ARGV, 2 do
  local id = ARGV[i]
  if is_mine(p.stream, group, id, consumer, ARGV[i + 1]) then
    redis.call('XCLAIM', p.stream, group, consumer, 0, id, 'JUSTID')
  else
    lost[#lost + 1] = id
  end
  if any_cancelled and redis.call('SISMEMBER', p.cancelled, id) == 1 then unwanted[#unwanted + 1] = id end
end
return {lost, unwanted}
