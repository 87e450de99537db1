--[[
see: begin with schedules that nobody knows yet: what was due before is not made up for. One that is known with other
times begins anew for whoever has just started; others leave it to them.

KEYS  each schedule's state
ARGV[1] ms now   ARGV[2] 1 for whoever has just started   then each schedule's fingerprint
Returns each state (HGETALL).
]]
local states = {}
for n, key in ipairs(KEYS) do
  local known, wanted = redis.call('HGET', key, 'fingerprint'), ARGV[n + 2]
  if not known or (known ~= wanted and ARGV[2] == '1') then
    redis.call('HSET', key, 'fingerprint', wanted, 'done', ARGV[1], 'refused', '0')
  end
  states[n] = redis.call('HGETALL', key)
end
return states
