--[[
add: append jobs to stages of one partition; once per dedup id, never past a stage's high-water mark. A stage that was
full refuses until it has come down to its low-water mark.

KEYS  a place per stage
ARGV[1]  signals channel
then per stage: its name, high-water mark (unfinished jobs it may hold), low-water mark, dedup TTL ms, most unfinished
entries a tenant may have in the stream (0: any number), what there is to a job besides its envelope (some of the
letters d, t, w), the number of jobs, and per job: envelope, dedup key (d; '' for none), tenant (t), delay ms (w)

Returns per stage one string per job: '<id>' accepted, '=<id>' duplicate of that one, '!' refused; then, where any was
refused, why and for how long: '!full <depth> <suggested wait ms>' or '!draining <depth> 0'.
]]
local signals, i = ARGV[1], 2

-- How long until there is likely to be room, by how many jobs were finished since the stage refused one before.
local function suggested_wait(p, depth, low_water)
  local info = redis.call('XINFO', 'STREAM', p.stream)
  local finished = count_added(info, redis.call('HGET', p.control, 'again')) - depth
  local now, wait = now_ms(), 1000
  local before = redis.call('GET', p.flow)
  local at, had = string.match(before or '', '(%d+) (%d+)')
  if at and now > tonumber(at) and finished > tonumber(had) then
    local rate = (finished - had) / (now - at)
    wait = math.floor((depth - low_water) / rate)
  end
  if not at or now > tonumber(at) + 1000 then
    redis.call('SET', p.flow, string.format('%.0f %.0f', now, finished), 'PX', 60000)
  end
  return math.max(50, math.min(wait, 60000))
end

-- How many jobs a stage takes now, whether it is being drained, and whether it was full and is not yet open again.
local function room_of(p, depth, high_water, low_water)
  local draining, full = unpack(redis.call('HMGET', p.control, 'draining', 'full'))
  if full and depth <= low_water then
    redis.call('HDEL', p.control, 'full')
    full = false
  end
  return (draining or full) and 0 or high_water - depth, draining, full
end

local function add_to(p)
  local stage, high_water, low_water = ARGV[i], tonumber(ARGV[i + 1]), tonumber(ARGV[i + 2])
  local ttl, limit = ARGV[i + 3], tonumber(ARGV[i + 4])
  local parts, count = ARGV[i + 5], tonumber(ARGV[i + 6])
  local has_dedup, has_tenant = string.find(parts, 'd', 1, true), string.find(parts, 't', 1, true)
  local has_delay = string.find(parts, 'w', 1, true)
  i = i + 7
  local depth = depth_of(p)
  local room, draining, shut = room_of(p, depth, high_water, low_water)
  local replies, refused = {}, false
  for n = 1, count do
    local body, dedup, tenant, delay = ARGV[i], '', '', 0
    i = i + 1
    if has_dedup then dedup, i = ARGV[i], i + 1 end
    if has_tenant then tenant, i = ARGV[i], i + 1 end
    if has_delay then delay, i = tonumber(ARGV[i]), i + 1 end
    local earlier = dedup ~= '' and redis.call('GET', dedup)
    if earlier then
      replies[n] = '=' .. earlier
    elseif room <= 0 then
      replies[n], refused = '!', true
    else
      room, depth = room - 1, depth + 1
      replies[n] = put(p, body, tenant, limit, delay, signals, stage)
      if dedup ~= '' then redis.call('SET', dedup, replies[n], 'PX', ttl) end
    end
  end
  if depth >= high_water and not shut then redis.call('HSET', p.control, 'full', low_water) end
  if draining and refused then
    replies[count + 1] = '!draining ' .. depth .. ' 0'
  elseif refused then
    replies[count + 1] = '!full ' .. depth .. ' ' .. suggested_wait(p, depth, low_water)
  end
  return replies
end

local replies = {}
for n = 1, #KEYS / 11 do replies[n] = add_to(place(n)) end
return replies
