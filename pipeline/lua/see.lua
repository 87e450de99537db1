--[[
see: begin with schedules that nobody knows yet: what was due before is not made up for. One that is known with other
times begins anew for whoever has just started; others leave it to them, until none of them was heard of for a while.
So does one that has come to a day from now or later: the clock was that far ahead once.

KEYS  each schedule's state
ARGV[1] ms now   ARGV[2] 1 for whoever has just started   ARGV[3] ms after which who was not heard of is gone
then each schedule's fingerprint
Returns each state (HGETALL).
]]
local states, now, DAY = {}, tonumber(ARGV[1]), 86400000
for n, key in ipairs(KEYS) do
  local found, wanted = redis.call('HMGET', key, 'fingerprint', 'seen', 'done'), ARGV[n + 3]
  local known, seen = found[1], tonumber(found[2] or 0)
  local left = known ~= wanted and (ARGV[2] == '1' or now - seen > tonumber(ARGV[3]))
  if not known or left or tonumber(found[3]) > now + DAY then
    redis.call('HSET', key, 'fingerprint', wanted, 'done', ARGV[1], 'refused', '0')
    known, seen = wanted, 0
  end
  if known == wanted and now > seen then redis.call('HSET', key, 'seen', ARGV[1]) end
  states[n] = redis.call('HGETALL', key)
end
return states
