--[[
replay: put a dead letter back into its stage's stream, as a new entry with all its tries before it. Adding comes
before deleting: a script that fails half-way is not undone.

KEYS[1] dead-letter stream   KEYS[2] stream
ARGV[1] the stream's job id prefix ('<stage>.<partition>.')
ARGV[2] the letter's id in the dead-letter stream   ARGV[3] the buried job's record key

Returns the new entry's id, '' where the letter is gone.
]]
local letter = redis.call('XRANGE', KEYS[1], ARGV[2], ARGV[2])[1]
if not letter then return '' end
local added
for f = 1, #letter[2], 2 do
  if letter[2][f] == 'e' then added = redis.call('XADD', KEYS[2], '*', 'e', letter[2][f + 1]) end
end
-- Whoever looks the buried job up, while it is remembered, is led to its successor.
if redis.call('EXISTS', ARGV[3]) == 1 then redis.call('HSET', ARGV[3], 'next', ARGV[1] .. added) end
redis.call('XDEL', KEYS[1], ARGV[2])
return added
