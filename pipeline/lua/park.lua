--[[
park: set entries aside until they are due. Serves retry (a failed try waits out its backoff) and
release (fetched but never started: due at once, delivery count restored). The entry stays in the
pending list under a pseudo-consumer, so its id, and with it the job id, never changes.

KEYS[1] stream   KEYS[2] due times (ZSET: entry id by due ms)
ARGV[1] group    ARGV[2] the worker's consumer name    ARGV[3] pseudo-consumer
then per entry: id, delay ms, delivery count to set ('' keeps it), record key, record ('' keeps none), record TTL ms

Returns one integer per entry: 1 parked, 0 no longer this consumer's.
]]
local stream, due, group, consumer, lot = KEYS[1], KEYS[2], ARGV[1], ARGV[2], ARGV[3]
local now, replies = now_ms(), {}
for i = 4, #ARGV, 6 do
  local id, delay, count = ARGV[i], ARGV[i + 1], ARGV[i + 2]
  local mine = holder(stream, group, id) == consumer
  if mine then
    if count == '' then
      redis.call('XCLAIM', stream, group, lot, 0, id, 'JUSTID')
    else
      redis.call('XCLAIM', stream, group, lot, 0, id, 'RETRYCOUNT', count, 'JUSTID')
    end
    redis.call('ZADD', due, now + delay, id)
    if ARGV[i + 4] ~= '' then
      redis.call('HSET', ARGV[i + 3], 'record', ARGV[i + 4])
      redis.call('PEXPIRE', ARGV[i + 3], ARGV[i + 5])
    end
  end
  replies[#replies + 1] = mine and 1 or 0
end
return replies
