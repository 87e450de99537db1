--[[
settle: finish entries and hand their forwards to the next stages, in one atomic step. An entry that is no
longer pending was settled by somebody else, and nothing of it is done twice. Adding comes before deleting:
a script that fails half-way is not undone.

KEYS  the entries' place, then one per stage forwarded to
ARGV[1]  group   ARGV[2]  signals channel   ARGV[3]  the tenant limit of the entries' stage
then for each stage forwarded to: its name, its tenant limit, its job id prefix ('<stage>.<partition>.')
then per entry: id, job's id, what it is now (completed, cancelled), record ('' keeps none), record TTL ms, number of
                forwards, and
                per forward: index into the stages forwarded to (from 1), envelope, tenant, delay ms

Returns one integer per entry: 1 settled, 0 already settled elsewhere.
]]
local group, signals, limit = ARGV[1], ARGV[2], tonumber(ARGV[3])
local mine, targets = place(1), {}
for n = 1, #KEYS / 11 - 1 do targets[n] = target(1 + n) end
local replies, i = {}, 4 + 3 * #targets
while i <= #ARGV do
  local id, job, state, record = ARGV[i], ARGV[i + 1], ARGV[i + 2], ARGV[i + 3]
  local last_forward = i + 5 + 4 * tonumber(ARGV[i + 5])
  local holding, deliveries = holder(mine.stream, group, id)
  if holding then
    tell(mine, job, state, deliveries)
    local following = hand_on(targets, 4, i + 6, last_forward, signals)
    if record ~= '' then remember(mine, job, ARGV[i + 4], 'record', record, 'next', following) end
    finish(mine, group, id, limit)
  end
  replies[#replies + 1] = holding and 1 or 0
  i = last_forward + 1
end
return replies
