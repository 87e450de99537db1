--[[
letters: read dead letters in either direction, as many as may be read at once: a letter holds its job whole, which
may be megabytes.

KEYS[1] a dead-letter stream
ARGV[1] 'XRANGE' or 'XREVRANGE'   ARGV[2], ARGV[3] from where to where, as that takes them
ARGV[4] at most   ARGV[5] bytes to read, and the letter that goes over them
ARGV[6] how long an envelope may be to come along; a longer one comes as ''
Returns {letters, 1 if there are more}.
]]
local command, from, to = ARGV[1], ARGV[2], ARGV[3]
local most, bytes, longest = tonumber(ARGV[4]), tonumber(ARGV[5]), tonumber(ARGV[6])
local found = {}
while #found < most and bytes > 0 do
  local letter = redis.call(command, KEYS[1], from, to, 'COUNT', 1)[1]
  if not letter then return {found, 0} end
  local fields = letter[2]
  for f = 2, #fields, 2 do
    bytes = bytes - #fields[f]
    if fields[f - 1] == 'e' and #fields[f] > longest then fields[f] = '' end
  end
  found[#found + 1] = letter
  from = '(' .. letter[1]
end
return {found, #redis.call(command, KEYS[1], from, to, 'COUNT', 1)}
