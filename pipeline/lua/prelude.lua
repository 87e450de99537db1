-- Put in front of every other script by scripts.py.

-- A place is one stage's partition; its keys come in this order, one place after the other (keys.py).
local function place(n)
  local at = 11 * (n - 1)
  return {
    stream = KEYS[at + 1], due = KEYS[at + 2], delays = KEYS[at + 3], later = KEYS[at + 4],
    tenants = KEYS[at + 5], control = KEYS[at + 6], cancelled = KEYS[at + 7], flow = KEYS[at + 8],
    held = KEYS[at + 9], job = KEYS[at + 10], events = KEYS[at + 11],
  }
end

-- Who holds a pending entry, and how often it was delivered; nil when nobody does, as while there is no group: no
-- worker has come yet, or the group is lost, and whoever comes next gets everything.
local function holder(stream, group, id)
  local found = redis.pcall('XPENDING', stream, group, id, id, 1)
  if found.err and not string.find(found.err, 'NOGROUP', 1, true) then error(found) end
  if found[1] then return found[1][2], found[1][4] end
end

-- A consumer's claim to an entry: it holds it, and by this very delivery. Its name alone would not do, as an
-- entry may come back to the consumer that had lost it.
local function is_mine(stream, group, id, consumer, deliveries)
  local who, times = holder(stream, group, id)
  return who == consumer and times == tonumber(deliveries)
end

-- Pseudo-consumers ('~retry', '~released', '~limited') own parked entries; no worker's name starts with '~'.
local function is_parked(consumer)
  return string.sub(consumer, 1, 1) == '~'
end

local function field_of(fields, name)
  for f = 1, #fields, 2 do
    if fields[f] == name then return fields[f + 1] end
  end
end

local function now_ms()
  local time = redis.call('TIME')
  return time[1] * 1000 + math.floor(time[2] / 1000)
end

-- All places of a call are of one partition, which has one stream of events: whether somebody listens is looked up once.
local listened_to

-- Those who listen (follow.lua) are told of a job's transition. 'attempt' and 'percent' may be missing.
local function tell(p, job, state, attempt, percent)
  if listened_to == nil then listened_to = redis.call('EXISTS', p.events) == 1 end
  if not listened_to then return end
  p.stage = p.stage or string.match(p.job, '}:job:(.*):$')
  local said = job .. ' ' .. state .. ' ' .. (attempt or 0) .. ' ' .. (percent or '-') .. ' ' .. p.stage
  redis.call('XADD', p.events, 'MAXLEN', '~', 10000, '*', 'j', said)
end

-- What is remembered of a job; whoever waits for it is told.
local function remember(p, id, ttl, ...)
  redis.call('HSET', p.job .. id, ...)
  redis.call('PEXPIRE', p.job .. id, ttl)
  redis.call('PUBLISH', p.job .. id, '')
end

-- An id of the stream's own for a job that is not in it yet: no other entry will ever have it.
local function reserve(stream)
  local id = redis.call('XADD', stream, '*', 'e', '')
  redis.call('XDEL', stream, id)
  return id
end

local WEEK = 7 * 86400 * 1000

-- Into the stream. A job that waited elsewhere keeps the id it was given there: field 'i'. Field 't' says for
-- whose account an entry is in the stream, where its stage limits that.
local function append(p, body, tenant, origin)
  local id
  if origin and tenant then
    id = redis.call('XADD', p.stream, '*', 'e', body, 'i', origin, 't', tenant)
  elseif origin then
    id = redis.call('XADD', p.stream, '*', 'e', body, 'i', origin)
  elseif tenant then
    id = redis.call('XADD', p.stream, '*', 'e', body, 't', tenant)
  else
    id = redis.call('XADD', p.stream, '*', 'e', body)
  end
  if origin then
    redis.call('HSET', p.job .. origin, 'at', id)
    redis.call('PEXPIRE', p.job .. origin, WEEK)
    redis.call('HINCRBY', p.control, 'again', 1)  -- the stream counts it for the second time
  end
  return origin or id
end

local function set_aside(p, id, body, tenant)
  redis.call('HSET', p.later, id, #tenant .. ':' .. tenant .. body)
end

-- The envelope and tenant of a job that was set aside, which it is no longer; nil where it is not.
local function fetch_back(p, id)
  local kept = redis.call('HGET', p.later, id)
  if not kept then return end
  redis.call('HDEL', p.later, id)
  local colon = string.find(kept, ':', 1, true)
  local first = colon + 1 + tonumber(string.sub(kept, 1, colon - 1))
  return string.sub(kept, first), string.sub(kept, colon + 1, first - 1)
end

-- Into the stream, while the tenant has room there; else it is held back until one of the tenant's entries is
-- finished. That is all there is to fairness: nobody's flood is ever in front of another's job.
local function admit(p, body, tenant, limit, origin)
  if limit == 0 then return append(p, body, nil, origin) end
  if redis.call('HINCRBY', p.tenants, tenant, 1) <= limit then return append(p, body, tenant, origin) end
  redis.call('HINCRBY', p.tenants, tenant, -1)
  local id = origin or reserve(p.stream)
  set_aside(p, id, body, tenant)
  redis.call('RPUSH', p.held .. tenant, id)
  return id
end

-- How many unfinished jobs a stage's partition holds.
local function depth_of(p)
  return redis.call('XLEN', p.stream) + redis.call('HLEN', p.later)
end

-- How many jobs ever came in, each once: the stream counts what is added to it.
local function count_added(stream_info, again)
  return field_of(stream_info, 'entries-added') - (again or 0)
end

-- A place that something may be added to, with the low-water mark it has to come down to, if it was full.
local function target(n)
  local p = place(n)
  p.full = redis.call('HGET', p.control, 'full')
  return p
end

-- A stage that was full takes jobs in again once it has come down to its low-water mark. Whatever makes it deeper
-- looks first, so that no low tide is missed.
local function reopen(p)
  if p.full and depth_of(p) <= tonumber(p.full) then
    redis.call('HDEL', p.control, 'full')
    p.full = false
  end
end

-- Tell workers that something of this stage is due earlier than they know of.
local function wake(signals, stage)
  redis.call('PUBLISH', signals, 'wake ' .. stage)
end

local already_delayed = 0

-- A job for a stage: now, or in `delay` ms. Returns its id.
local function put(p, body, tenant, limit, delay, signals, stage)
  if delay == 0 then
    local id = admit(p, body, tenant, limit)
    tell(p, id, 'waiting')
    return id
  end
  -- A fraction of a ms for each before it: what is due at one time comes in the order it was given here, not in that
  -- of the ids as text (1-10 before 1-2).
  already_delayed = already_delayed + 1
  local id, at = reserve(p.stream), now_ms() + delay + already_delayed / 1000
  set_aside(p, id, body, tenant)
  redis.call('ZADD', p.delays, at, id)
  tell(p, id, 'delayed')
  if redis.call('ZRANGE', p.delays, 0, 0)[1] == id then wake(signals, stage) end
  return id
end

-- Hand a job on. ARGV from `about` on says of each stage it may go to: name, tenant limit, job id prefix; from `first`
-- to `last` four arguments are a forward: index of its stage, envelope, tenant, delay ms. Returns the new jobs' ids.
local function hand_on(targets, about, first, last, signals)
  local following = {}
  for f = first, last, 4 do
    local index = tonumber(ARGV[f])
    local p, at = targets[index], about + 3 * (index - 1)
    local limit, delay = tonumber(ARGV[at + 1]), tonumber(ARGV[f + 3])
    reopen(p)
    local added = put(p, ARGV[f + 1], ARGV[f + 2], limit, delay, signals, ARGV[at])
    following[#following + 1] = ARGV[at + 2] .. added
  end
  return table.concat(following, ',')
end

-- The next of a tenant's jobs that were held back, and not cancelled meanwhile, goes into the stream.
local function move_up(p, tenant)
  while true do
    local id = redis.call('LPOP', p.held .. tenant)
    if not id then return false end
    local body = fetch_back(p, id)
    if body then
      append(p, body, tenant, id)
      return true
    end
  end
end

-- An entry is done with: acknowledged, deleted, and the tenant's next one moves up.
local function finish(p, group, id, limit)
  local tenant
  if limit > 0 then
    local entry = redis.call('XRANGE', p.stream, id, id)[1]
    tenant = entry and field_of(entry[2], 't')
  end
  redis.call('XACK', p.stream, group, id)
  redis.call('XDEL', p.stream, id)
  if tenant and not move_up(p, tenant) and redis.call('HINCRBY', p.tenants, tenant, -1) <= 0 then
    redis.call('HDEL', p.tenants, tenant)
  end
end

local function remember_cancelled(p, id, attempt)
  remember(p, id, WEEK, 'record', cmsgpack.pack({state = 'cancelled', attempt = attempt, at_ms = now_ms()}))
  tell(p, id, 'cancelled', attempt)
end
