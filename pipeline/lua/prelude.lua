-- Put in front of every other script by scripts.py.

-- Who holds a pending entry, and how often it was delivered; nil when nobody does.
local function holder(stream, group, id)
  local found = redis.call('XPENDING', stream, group, id, id, 1)[1]
  if found then return found[2], found[4] end
end

-- Pseudo-consumers ('~retry', '~released') own parked entries; no worker's name starts with '~'.
local function is_parked(consumer)
  return string.sub(consumer, 1, 1) == '~'
end

local function now_ms()
  local time = redis.call('TIME')
  return time[1] * 1000 + math.floor(time[2] / 1000)
end
