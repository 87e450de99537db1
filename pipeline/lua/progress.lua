--[[
progress: note how far a job has come, if the entry is still this consumer's.

KEYS  the place
ARGV[1] group   ARGV[2] consumer   ARGV[3] entry id   ARGV[4] its delivery count   ARGV[5] job's id
ARGV[6] per cent   ARGV[7] TTL ms
Returns 1 noted, 0 no longer this consumer's.
]]
local p = place(1)
if not is_mine(p.stream, ARGV[1], ARGV[3], ARGV[2], ARGV[4]) then return 0 end
remember(p, ARGV[5], ARGV[7], 'progress', ARGV[6])
return 1
