--[[
acknowledge: finish entries that leave nothing behind. A script, as the server refuses commands of a transaction, even
these, when its memory is used up.

KEYS[1] stream   ARGV[1] group   then entry ids
Returns how many nobody else had settled before.
]]
local settled = redis.call('XACK', KEYS[1], unpack(ARGV))
redis.call('XDEL', KEYS[1], unpack(ARGV, 2))
return settled
