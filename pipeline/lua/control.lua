--[[
control: pause, resume or drain a stage's partition. A paused group stands at the end of all ids: the server itself
gives nothing out, whoever asks, from this very moment. What it had come to is remembered.

KEYS  the place
ARGV[1] group   ARGV[2] 'ensure' (make the group, as it should be), 'pause', 'resume' or 'drain'
ARGV[3] signals channel   ARGV[4] stage
]]
local p, group, what = place(1), ARGV[1], ARGV[2]
local END = '18446744073709551615-18446744073709551615'
-- From 0: what came before the group is not lost.
local made = redis.pcall('XGROUP', 'CREATE', p.stream, group, '0', 'MKSTREAM')
if made.err and not string.find(made.err, 'BUSYGROUP', 1, true) then return made end
if made.ok and redis.call('HEXISTS', p.control, 'paused') == 1 then
  redis.call('HSET', p.control, 'paused', '0-0')
  redis.call('XGROUP', 'SETID', p.stream, group, END)
end
local paused = redis.call('HGET', p.control, 'paused')
if what == 'pause' and not paused then
  for _, info in ipairs(redis.call('XINFO', 'GROUPS', p.stream)) do
    if field_of(info, 'name') == group then
      redis.call('HSET', p.control, 'paused', field_of(info, 'last-delivered-id'))
    end
  end
  redis.call('XGROUP', 'SETID', p.stream, group, END)
  redis.call('PUBLISH', ARGV[3], 'pause ' .. ARGV[4])
elseif what == 'drain' then
  redis.call('HSET', p.control, 'draining', 1)
elseif what == 'resume' then
  redis.call('HDEL', p.control, 'paused', 'draining')
  if paused then
    redis.call('XGROUP', 'SETID', p.stream, group, paused)
    wake(ARGV[3], ARGV[4])
  end
end
