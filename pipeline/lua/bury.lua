--[[
bury: move entries that will not be tried again to the stage's dead letters, and hand on what is to follow from it.

KEYS  the entries' place, one per stage handed on to, then the dead-letter stream and its index by job
ARGV[1] group   ARGV[2] consumer   ARGV[3] the stage's tenant limit   ARGV[4] record TTL ms   ARGV[5] signals channel
then for each stage handed on to: its name, its tenant limit, its job id prefix ('<stage>.<partition>.')
then per entry: id, its delivery count, job's id, envelope (or the bytes found in its place), record, number of
                forwards, and these as in settle

Returns one integer per entry: 1 buried, 0 no longer this consumer's.
]]
local p, dead, letters = place(1), KEYS[#KEYS - 1], KEYS[#KEYS]
local group, consumer, limit = ARGV[1], ARGV[2], tonumber(ARGV[3])
local targets = {}
for n = 1, (#KEYS - 2) / 11 - 1 do targets[n] = target(1 + n) end
local replies, i = {}, 6 + 3 * #targets
while i <= #ARGV do
  local id, job, record = ARGV[i], ARGV[i + 2], ARGV[i + 4]
  local last_forward = i + 5 + 4 * tonumber(ARGV[i + 5])
  local mine = is_mine(p.stream, group, id, consumer, ARGV[i + 1])
  if mine then
    tell(p, job, 'failed', ARGV[i + 1])
    -- Adding comes before deleting: a script that fails half-way is not undone.
    redis.call('HSET', letters, job, redis.call('XADD', dead, '*', 'id', job, 'e', ARGV[i + 3], 'record', record))
    remember(p, job, ARGV[4], 'record', record, 'next', hand_on(targets, 6, i + 6, last_forward, ARGV[5]))
    finish(p, group, id, limit)
  end
  replies[#replies + 1] = mine and 1 or 0
  i = last_forward + 1
end
return replies
