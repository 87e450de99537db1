--[[
follow: have the scripts tell of transitions for a while longer. The stream of events is there only while somebody
listens, so that nobody else pays for it; its first entry ('m') says that it is new.

KEYS[1] STREAM of events   ARGV[1] ms
Returns {its first id, its last id}.
]]
if redis.call('EXISTS', KEYS[1]) == 0 then redis.call('XADD', KEYS[1], '*', 'm', '') end
redis.call('PEXPIRE', KEYS[1], ARGV[1])
return {redis.call('XRANGE', KEYS[1], '-', '+', 'COUNT', 1)[1][1],
  field_of(redis.call('XINFO', 'STREAM', KEYS[1]), 'last-generated-id')}
