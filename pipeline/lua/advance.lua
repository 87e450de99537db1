--[[
advance: a schedule has come further. Only from where the caller saw it, and with the times the caller knows, so that
of several who did the same one is heard, and nothing goes back.

KEYS[1] the schedule's state
ARGV[1] fingerprint   ARGV[2] where the caller saw it, and   ARGV[3] where it is now: ms up to which all is done
ARGV[4] how many slots were missed on the way   ARGV[5] the newest slot that was refused, or ''
ARGV[6] the newest slot that has a job, or ''   ARGV[7] ms at which it got it   ARGV[8] job id
Returns the state (HGETALL).
]]
local found = redis.call('HMGET', KEYS[1], 'fingerprint', 'done')
if found[1] == ARGV[1] and found[2] == ARGV[2] then
  redis.call('HSET', KEYS[1], 'done', ARGV[3])
  redis.call('HINCRBY', KEYS[1], 'missed', ARGV[4])
  if ARGV[5] ~= '' then redis.call('HSET', KEYS[1], 'refused', ARGV[5]) end
  if ARGV[6] ~= '' then redis.call('HSET', KEYS[1], 'slot', ARGV[6], 'fired', ARGV[7], 'job', ARGV[8]) end
end
return redis.call('HGETALL', KEYS[1])
