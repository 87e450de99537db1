--[[
renew: the lease heartbeat. Resets the idle time of entries that are still this consumer's.

KEYS[1] stream   ARGV[1] group   ARGV[2] consumer   ARGV[3…] entry ids
Returns the ids that are no longer this consumer's.
]]
local lost = {}
for i = 3, #ARGV do
  if holder(KEYS[1], ARGV[1], ARGV[i]) == ARGV[2] then
    redis.call('XCLAIM', KEYS[1], ARGV[1], ARGV[2], 0, ARGV[i], 'JUSTID')
  else
    lost[#lost + 1] = ARGV[i]
  end
end
return lost
