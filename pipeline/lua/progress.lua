--[[
progress: note how far a job has come, if the entry is still this consumer's.

KEYS  the place
ARGV[1] group   ARGV[2] consumer   ARGV[3] entry id   ARGV[4] its delivery count   ARGV[5] job's id
ARGV[6] per cent, and what it is doing   ARGV[7] TTL ms, at least
Returns 1 noted, 0 no longer this consumer's.
]]
local p = place(1)
if not is_mine(p.stream, ARGV[1], ARGV[3], ARGV[2], ARGV[4]) then return 0 end
-- Where the job's entry is stands there too, and may have to stay for longer.
local left = redis.call('PTTL', p.job .. ARGV[5])
remember(p, ARGV[5], math.max(left, tonumber(ARGV[7])), 'progress', ARGV[6])
tell(p, ARGV[5], 'active', ARGV[4], string.match(ARGV[6], '^%d+'))
return 1
