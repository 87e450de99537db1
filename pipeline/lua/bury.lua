--[[
bury: move entries that will not be tried again to the stage's dead letters.

KEYS[1] stream   KEYS[2] dead-letter stream
ARGV[1] group    ARGV[2] consumer   ARGV[3] record TTL ms
then per entry: id, envelope (or the bytes found in its place), record key, record

Returns one integer per entry: 1 buried, 0 no longer this consumer's.
]]
local stream, dead, group, consumer = KEYS[1], KEYS[2], ARGV[1], ARGV[2]
local replies = {}
for i = 4, #ARGV, 4 do
  local id, record_key, record = ARGV[i], ARGV[i + 2], ARGV[i + 3]
  local mine = holder(stream, group, id) == consumer
  if mine then
    -- Adding comes before deleting: a script that fails half-way is not undone.
    redis.call('XADD', dead, '*', 'id', id, 'e', ARGV[i + 1], 'record', record)
    redis.call('HSET', record_key, 'record', record)
    redis.call('PEXPIRE', record_key, ARGV[3])
    redis.call('XACK', stream, group, id)
    redis.call('XDEL', stream, id)
  end
  replies[#replies + 1] = mine and 1 or 0
end
return replies
