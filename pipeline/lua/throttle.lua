--[[
throttle: take a token from one bucket after the other, up to the first that has none now: there a time is set when there
will be one. Those after it are asked when that time has come, as a token taken long before it is used would not keep
their rate. A token bucket is kept as one time (GCRA): that up to which tokens are given out. The token is taken in either
case, so whoever waits as long as told need not ask again, and a thousand that wait come one after the other.

KEYS  a bucket each
ARGV  per bucket: ms per token, burst (tokens that may be taken at once)
Returns the ms to wait (0 says go), and how many tokens were taken.
]]
local now = now_ms()
for n = 1, #KEYS do
  local interval, burst = tonumber(ARGV[2 * n - 1]), tonumber(ARGV[2 * n])
  local given_out = math.max(tonumber(redis.call('GET', KEYS[n]) or 0), now - (burst - 1) * interval)
  local next_one = given_out + interval
  redis.call('SET', KEYS[n], string.format('%.3f', next_one), 'PX', math.ceil(next_one - now + burst * interval) + 1)
  if given_out > now then return {math.ceil(given_out - now), n} end
end
return {0, #KEYS}
