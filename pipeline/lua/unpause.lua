--[[
unpause: a schedule goes on from now; what was due meanwhile is not made up for.

KEYS[1] names of paused schedules   KEYS[2] version   KEYS[3] the schedule's state
ARGV[1] name   ARGV[2] ms now, or '' for the server's   ARGV[3] channel
]]
if redis.call('SREM', KEYS[1], ARGV[1]) == 1 then
  local now = ARGV[2] ~= '' and tonumber(ARGV[2]) or now_ms()
  local done = redis.call('HGET', KEYS[3], 'done')
  if done and tonumber(done) < now then redis.call('HSET', KEYS[3], 'done', string.format('%.0f', now)) end
end
redis.call('INCR', KEYS[2])
redis.call('PUBLISH', ARGV[3], '')
