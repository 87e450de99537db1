--[[
cancel: take a job out before it runs, or have whoever runs it told to stop.

KEYS  the place
ARGV[1] group   ARGV[2] job's id   ARGV[3] signals channel   ARGV[4] what to say there   ARGV[5] tenant limit
Returns 'cancelled', 'cancelling' (it is with a worker), or '' where there is no such unfinished job.
]]
local p, group, job, limit = place(1), ARGV[1], ARGV[2], tonumber(ARGV[5])
if redis.call('HDEL', p.later, job) == 1 then -- one held back is skipped when its turn comes
  redis.call('ZREM', p.delays, job)
  remember_cancelled(p, job, 0)
  return 'cancelled'
end
local id = redis.call('HGET', p.job .. job, 'at') or job
if not redis.call('XRANGE', p.stream, id, id)[1] then return '' end
local consumer, deliveries = holder(p.stream, group, id)
if consumer and not is_parked(consumer) then
  redis.call('SADD', p.cancelled, id)
  redis.call('PEXPIRE', p.cancelled, WEEK)
  redis.call('PUBLISH', ARGV[3], ARGV[4] .. id)
  return 'cancelling'
end
redis.call('ZREM', p.due, id)
finish(p, group, id, limit)
remember_cancelled(p, job, deliveries or 0)
return 'cancelled'
