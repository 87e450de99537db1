--[[
renew: the lease heartbeat. Resets the idle time of entries that are still this consumer's, and notes since when it has
held the oldest of them, as that resetting would have it forgotten; of those that run for long, since when they do.

KEYS  the place, then HASH with a TTL: by consumer, '<id> <since ms>'
ARGV[1] group   ARGV[2] consumer   ARGV[3] ms that the first entry is held, the longest of all (-1: not known)
then per entry: id, its delivery count, job's id, ms that it runs (-1: does not, or not for long)
Returns {ids that are no longer this consumer's, ids that somebody wants cancelled}.
]]
local p, group, consumer, lost, unwanted = place(1), ARGV[1], ARGV[2], {}, {}
local any_cancelled = redis.call('EXISTS', p.cancelled) == 1
for i = 4, #ARGV, 4 do
  local id = ARGV[i]
  if is_mine(p.stream, group, id, consumer, ARGV[i + 1]) then
    redis.call('XCLAIM', p.stream, group, consumer, 0, id, 'JUSTID')
    if i == 4 and tonumber(ARGV[3]) >= 0 then
      redis.call('HSET', KEYS[12], consumer, id .. ' ' .. string.format('%.0f', now_ms() - ARGV[3]))
      redis.call('PEXPIRE', KEYS[12], WEEK)
    end
    if tonumber(ARGV[i + 3]) >= 0 then
      local job = p.job .. ARGV[i + 2]
      local since = string.format('%.0f', now_ms() - ARGV[i + 3])
      redis.call('HSET', job, 'started', consumer .. ' ' .. ARGV[i + 1] .. ' ' .. since)
      redis.call('PEXPIRE', job, math.max(redis.call('PTTL', job), 60000))
    end
  else
    lost[#lost + 1] = id
  end
  if any_cancelled and redis.call('SISMEMBER', p.cancelled, id) == 1 then unwanted[#unwanted + 1] = id end
end
return {lost, unwanted}
