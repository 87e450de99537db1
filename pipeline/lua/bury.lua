--[[
bury: move entries that will not be tried again to the stage's dead letters.

KEYS  the entries' place, then the dead-letter stream
ARGV[1] group   ARGV[2] consumer   ARGV[3] the stage's tenant limit   ARGV[4] record TTL ms
then per entry: id, its delivery count, job's id, envelope (or the bytes found in its place), record

Returns one integer per entry: 1 buried, 0 no longer this consumer's.
]]
local p, dead, group, consumer, limit = place(1), KEYS[11], ARGV[1], ARGV[2], tonumber(ARGV[3])
local replies = {}
for i = 5, #ARGV, 5 do
  local id, job, record = ARGV[i], ARGV[i + 2], ARGV[i + 4]
  local mine = is_mine(p.stream, group, id, consumer, ARGV[i + 1])
  if mine then
    -- Adding comes before deleting: a script that fails half-way is not undone.
    redis.call('XADD', dead, '*', 'id', job, 'e', ARGV[i + 3], 'record', record)
    remember(p, job, ARGV[4], 'record', record)
    finish(p, group, id, limit)
  end
  replies[#replies + 1] = mine and 1 or 0
end
return replies
