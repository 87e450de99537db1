--[[
plan: keep a run-time schedule. With the times it had before it goes on where it was, with others it begins now.

KEYS[1] definitions   KEYS[2] version   KEYS[3] the schedule's state
ARGV[1] name   ARGV[2] definition   ARGV[3] fingerprint   ARGV[4] most that may be kept   ARGV[5] ms now, or '' for
the server's   ARGV[6] channel
Returns 1 kept, 0 there are as many as may be.
]]
local new = redis.call('HEXISTS', KEYS[1], ARGV[1]) == 0
if new and redis.call('HLEN', KEYS[1]) >= tonumber(ARGV[4]) then return 0 end
redis.call('HSET', KEYS[1], ARGV[1], ARGV[2])
if new or redis.call('HGET', KEYS[3], 'fingerprint') ~= ARGV[3] then
  local now = ARGV[5] ~= '' and ARGV[5] or string.format('%.0f', now_ms())
  redis.call('HSET', KEYS[3], 'fingerprint', ARGV[3], 'done', now, 'refused', '0')
end
redis.call('INCR', KEYS[2])
redis.call('PUBLISH', ARGV[6], '')
return 1
