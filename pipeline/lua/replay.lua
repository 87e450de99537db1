--[[
replay: put a dead letter back into its stage's stream, as a new entry with all its tries before it. Adding comes
before deleting: a script that fails half-way is not undone.

KEYS  the stage's place, then its dead-letter stream and its index by job
ARGV[1] the stream's job id prefix ('<stage>.<partition>.')   ARGV[2] the letter's id in the dead-letter stream
ARGV[3] the buried job's id   ARGV[4] its tenant   ARGV[5] the stage's tenant limit
ARGV[6] its envelope from now on, '' for the one that it was buried in

Returns the new job's id, '' where the letter is gone.
]]
local p, dead = target(1), KEYS[12]
local letter = redis.call('XRANGE', dead, ARGV[2], ARGV[2])[1]
if not letter then return '' end
reopen(p)
local body = ARGV[6] ~= '' and ARGV[6] or field_of(letter[2], 'e')
local added = admit(p, body, ARGV[4], tonumber(ARGV[5]))
tell(p, added, 'waiting')
-- Whoever looks the buried job up, while it is remembered, is led to its successor.
local record = p.job .. ARGV[3]
if redis.call('EXISTS', record) == 1 then redis.call('HSET', record, 'next', ARGV[1] .. added) end
redis.call('XDEL', dead, ARGV[2])
redis.call('HDEL', KEYS[13], ARGV[3])
return added
