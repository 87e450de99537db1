--[[
position: how many jobs of a stage's partition come before one that waits, and are with no worker: what nobody was
given yet, and before all of that what is due again. One held back for its tenant comes after the tenant's own before
it, and after what is in the stream already.

KEYS  the place
ARGV[1] group   ARGV[2] entry's id   ARGV[3] job's id   ARGV[4] most to count
Returns {count, 1 where there may be more}; {} where it does not wait.
]]
local p, group, entry, job, most = place(1), ARGV[1], ARGV[2], ARGV[3], tonumber(ARGV[4])
-- The server copies what is counted. Envelopes may have megabytes, so pages grow from one entry, up to these:
local MOST_BYTES, LONGEST_PAGE = 1048576, 64

local function counted(count)
  if count >= most then return {most, 1} end
  return {count, 0}
end

local function come_to()
  local paused = redis.call('HGET', p.control, 'paused')
  if paused then return paused end
  local groups = redis.pcall('XINFO', 'GROUPS', p.stream)
  if groups.err then return '0-0' end  -- there is no stream yet
  for _, info in ipairs(groups) do
    if field_of(info, 'name') == group then return field_of(info, 'last-delivered-id') end
  end
  return '0-0'
end

local function fresh_before(last, count)
  local start, bytes, page = '(' .. come_to(), 0, 1
  while count < most and bytes < MOST_BYTES do
    local found = redis.call('XRANGE', p.stream, start, last, 'COUNT', math.min(page, most - count))
    if #found == 0 then return counted(count) end
    count, page, start = count + #found, math.min(2 * page, LONGEST_PAGE), '(' .. found[#found][1]
    for _, each in ipairs(found) do bytes = bytes + #each[2][2] end  -- its first field's
  end
  return {count, 1}
end

local due = redis.call('ZCOUNT', p.due, '-inf', now_ms())
local kept = redis.call('HGET', p.later, job)
if kept then
  if redis.call('ZSCORE', p.delays, job) then return {} end
  local colon = string.find(kept, ':', 1, true)
  local tenant = string.sub(kept, colon + 1, colon + tonumber(string.sub(kept, 1, colon - 1)))
  local before = redis.call('LPOS', p.held .. tenant, job, 'MAXLEN', most)
  return before and fresh_before('+', due + before) or {most, 1}
end
local consumer = holder(p.stream, group, entry)
if consumer then
  local before = is_parked(consumer) and redis.call('ZRANK', p.due, entry)
  return before and counted(before) or {}
end
if not redis.call('XRANGE', p.stream, entry, entry)[1] then return {} end
return fresh_before('(' .. entry, due)
