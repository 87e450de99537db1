--[[
tell: those who listen of transitions that no script makes.

KEYS  the jobs' place
ARGV[1] what they are now   then per job: its id, attempt
]]
local p = place(1)
for i = 2, #ARGV, 2 do tell(p, ARGV[i], ARGV[1], ARGV[i + 1]) end
