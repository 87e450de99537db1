--[[
settle: finish entries and hand their forwards to the next stages, in one atomic step. An entry that is no
longer pending was settled by somebody else, and nothing of it is done twice. Adding comes before deleting:
a script that fails half-way is not undone.

KEYS[1]  stream
KEYS[2…] streams of the stages forwarded to
ARGV[1]  group
ARGV[2]  number of streams forwarded to, then for each its job id prefix ('<stage>.<partition>.')
then per entry: id, record key, record ('' keeps none), record TTL ms,
                number of forwards, then per forward: index into the streams forwarded to (from 1), envelope

Returns one integer per entry: 1 settled, 0 already settled elsewhere.
]]
local stream, group, targets = KEYS[1], ARGV[1], tonumber(ARGV[2])
local replies, i = {}, 3 + targets
while i <= #ARGV do
  local id, record_key, record, ttl = ARGV[i], ARGV[i + 1], ARGV[i + 2], ARGV[i + 3]
  local last_forward = i + 4 + 2 * tonumber(ARGV[i + 4])
  local pending = holder(stream, group, id) ~= nil
  if pending then
    local following = {}
    for f = i + 5, last_forward, 2 do
      local target = tonumber(ARGV[f])
      local added = redis.call('XADD', KEYS[1 + target], '*', 'e', ARGV[f + 1])
      following[#following + 1] = ARGV[2 + target] .. added
    end
    if record ~= '' then
      redis.call('HSET', record_key, 'record', record, 'next', table.concat(following, ','))
      redis.call('PEXPIRE', record_key, ttl)
    end
    redis.call('XACK', stream, group, id)
    redis.call('XDEL', stream, id)
  end
  replies[#replies + 1] = pending and 1 or 0
  i = last_forward + 1
end
return replies
