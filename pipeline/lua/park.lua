--[[
park: set entries aside until they are due. Serves retry (a failed try waits out its backoff), release (fetched but
never started: due at once, delivery count restored) and rate limits. The entry stays in the pending list under a
pseudo-consumer, so its id, and with it the job id, never changes.

KEYS  the entries' place
ARGV[1] group   ARGV[2] the worker's consumer name   ARGV[3] pseudo-consumer   ARGV[4] signals channel   ARGV[5] stage
then per entry: id, its delivery count, delay ms, delivery count to set, job's id, record ('' keeps none), record TTL
                ms

Returns one integer per entry: 1 parked, 0 no longer this consumer's.
]]
local p, group, consumer, lot = place(1), ARGV[1], ARGV[2], ARGV[3]
local state = lot == '~retry' and 'retrying' or 'waiting'
local now, replies, soonest = now_ms(), {}, nil
for i = 6, #ARGV, 7 do
  local id = ARGV[i]
  local mine = is_mine(p.stream, group, id, consumer, ARGV[i + 1])
  if mine then
    -- A fraction of a ms for each before it: what has the same time comes back in the order it was given here,
    -- not in that of the ids as text (1-10 before 1-2).
    local at = now + ARGV[i + 2] + (i - 6) / 7000
    redis.call('XCLAIM', p.stream, group, lot, 0, id, 'RETRYCOUNT', ARGV[i + 3], 'JUSTID')
    redis.call('ZADD', p.due, at, id)
    soonest = math.min(soonest or at, at)
    tell(p, ARGV[i + 4], state, ARGV[i + 3])
    redis.call('HDEL', p.job .. ARGV[i + 4], 'started') -- a try that did not count has the next one's number
    if ARGV[i + 5] ~= '' then
      redis.call('HSET', p.job .. ARGV[i + 4], 'record', ARGV[i + 5])
      redis.call('PEXPIRE', p.job .. ARGV[i + 4], ARGV[i + 6])
    end
  end
  replies[#replies + 1] = mine and 1 or 0
end
if soonest and tonumber(redis.call('ZRANGE', p.due, 0, 0, 'WITHSCORES')[2]) >= soonest then wake(ARGV[4], ARGV[5]) end
return replies
