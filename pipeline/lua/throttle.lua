--[[
throttle: take a token from every bucket, or have a time set when there will be one in each. A token bucket kept as
one time (GCRA): that up to which tokens are given out. The token is taken in either case, so whoever waits as long as
told need not ask again, and a thousand that wait come one after the other.

KEYS  a bucket each
ARGV  per bucket: ms per token, burst (tokens that may be taken at once)
Returns the ms to wait; 0 says go.
]]
local now, wait = now_ms(), 0
for n = 1, #KEYS do
  local interval, burst = tonumber(ARGV[2 * n - 1]), tonumber(ARGV[2 * n])
  local given_out = math.max(tonumber(redis.call('GET', KEYS[n]) or 0), now - (burst - 1) * interval)
  local next_one = given_out + interval
  wait = math.max(wait, math.ceil(given_out - now))
  redis.call('SET', KEYS[n], string.format('%.3f', next_one), 'PX', math.ceil(next_one - now + burst * interval) + 1)
end
return wait
