-- Which upstreams refuse, as one proxy reports it to the others. `src/lease/pressed.rs` describes the protocol.
-- KEYS[1]  a hash: for each model a time, and until when its upstream is left alone; 0: it serves again since that time
-- ARGV     model ago wait, for each change: it refused `ago` milliseconds ago, and is left alone for `wait`; 0: it served a request that was sent then
-- answers  model ago wait, for each model whose upstream refuses; wait 0: the wait is over, and nobody was served yet
local MOST, HOUR, DAY = 64, 3600000, 86400
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)

local drawn = redis.call('HRANDFIELD', KEYS[1], MOST, 'WITHVALUES')
local known, gone = {}, {}
for at = 1, #drawn, 2 do
  local since, ends = string.match(drawn[at + 1], '^(%d+) (%d+)')
  since, ends = tonumber(since or 0), tonumber(ends or 0)
  if math.max(since, ends) + HOUR < now then gone[#gone + 1] = drawn[at] else known[drawn[at]] = {since, ends} end
end

local set, room = {}, MOST - #drawn / 2
for at = 1, #ARGV - 2, 3 do
  local model, ago, wait = ARGV[at], tonumber(ARGV[at + 1]), tonumber(ARGV[at + 2])
  if not (ago and wait) then return redis.error_reply('ERR bursar: argument ' .. at .. ' is no number') end
  local one, since, ends = known[model], now - ago, now + wait
  local is_later = one and (since > one[1] or wait == 0 and since == one[1])
  if wait == 0 then ends = 0 end
  if one and one[2] > 0 and wait > 0 then
    -- Still refused: the longest wait counts.
    since, ends, is_later = math.max(since, one[1]), math.max(ends, one[2]), true
  end
  local is_new = not one and wait > 0 and room > 0
  if is_new then room = room - 1 end
  if is_later or is_new then
    known[model] = {since, ends}
    set[#set + 1] = model
    set[#set + 1] = string.format('%.0f %.0f', since, ends)
  end
end
if #gone > 0 then redis.call('HDEL', KEYS[1], unpack(gone)) end
if #set > 0 then
  redis.call('HSET', KEYS[1], unpack(set))
  redis.call('EXPIREAT', KEYS[1], time[1] + DAY)
end

local answer = {}
for model, one in pairs(known) do
  if one[2] > 0 then
    answer[#answer + 1] = model
    answer[#answer + 1] = math.max(now - one[1], 0)
    answer[#answer + 1] = math.max(one[2] - now, 0)
  end
end
return answer
