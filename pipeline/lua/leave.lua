--[[
leave: forget this consumer, unless it still holds entries (deleting it then would lose them).

KEYS[1] stream   KEYS[2] what each consumer has held longest   ARGV[1] group   ARGV[2] consumer
Returns the number of entries still held.
]]
local held = redis.call('XPENDING', KEYS[1], ARGV[1], '-', '+', 1, ARGV[2])
if #held == 0 then
  redis.call('XGROUP', 'DELCONSUMER', KEYS[1], ARGV[1], ARGV[2])
  redis.call('HDEL', KEYS[2], ARGV[2])
end
return #held
