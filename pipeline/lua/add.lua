--[[
add: append envelopes to a stage's stream; once per dedup id, never past the high-water mark.

KEYS[1]  stream
ARGV[1]  high-water mark: unfinished entries the stage may hold
ARGV[2]  dedup TTL, ms
ARGV[3…] per entry: envelope, dedup key ('' for none; it lies in the stream's hash slot)

Returns one string per entry: '<entry id>' accepted, '=<entry id>' duplicate of that one, '!' refused.
]]
local room = tonumber(ARGV[1]) - redis.call('XLEN', KEYS[1])
local replies = {}
for i = 3, #ARGV, 2 do
  local dedup = ARGV[i + 1]
  local earlier = dedup ~= '' and redis.call('GET', dedup)
  local reply
  if earlier then
    reply = '=' .. earlier
  elseif room <= 0 then
    reply = '!'
  else
    room = room - 1
    reply = redis.call('XADD', KEYS[1], '*', 'e', ARGV[i])
    if dedup ~= '' then redis.call('SET', dedup, reply, 'PX', ARGV[2]) end
  end
  replies[#replies + 1] = reply
end
return replies
