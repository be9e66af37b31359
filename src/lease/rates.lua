-- Processes one line of one proxy about one token bucket. `src/lease/rate.rs` describes the protocol.
-- KEYS[1]  a hash: `a` for the bucket, `p:HOLDER` for each proxy
-- ARGV     holder seq share demand least back fill silence born relearn; shares in millionths, times in milliseconds
-- answers  status grant share level holders now born demand total 0
local WHOLE, WORTH, DAY, HOUR = 1000000, 30000, 86400000, 3600
local GRANTED, STALE = 0, 1
local write, floor, max, min = string.format, math.floor, math.max, math.min

local arg = {}
for at = 2, 10 do
  local text = ARGV[at] or ''
  arg[at] = #text <= 16 and string.find(text, '^%d+$') and tonumber(text)
  if not arg[at] then return redis.error_reply('ERR bursar: argument ' .. at .. ' is no number') end
end
local seq, share, demand, least, back = arg[2], min(arg[3], WHOLE), arg[4], min(arg[5], WHOLE), min(arg[6], WHOLE)
local fill, silence, known, relearn = max(arg[7], 1), arg[8], arg[9], arg[10]
local time = redis.call('TIME')
local now = time[1] * 1000 + floor(time[2] / 1000)

local own = 'p:' .. ARGV[1]
local stored = redis.call('HMGET', KEYS[1], 'a', own)
-- The pool is the part of the rate that no proxy has. `level` is how much of the pool has been refilled.
local total, asked, holders, level, since, born, learning, keep, more = 0, 0, 0, known > 0 and 0 or WHOLE, now, now, 0, 0, ''
if stored[1] then
  local t, d, n, l, s, b, r, k, rest = string.match(stored[1], '^(%d+) (%d+) (%d+) (%d+) (%d+) (%d+) (%d+) (%d+)(.*)$')
  if not t then return redis.error_reply('ERR bursar: the bucket is not one') end
  total, asked, holders, level, since = tonumber(t), tonumber(d), tonumber(n), tonumber(l), min(tonumber(s), now)
  born, learning, keep, more = tonumber(b), tonumber(r), tonumber(k), rest
end
local ENTRY = '^(%d+) (%d+) (%d+) (%d+)(.*)$'
local last, had, wanted = -1, 0, 0
if stored[2] then
  local s, g, d = string.match(stored[2], ENTRY)
  if not s then return redis.error_reply('ERR bursar: the entry is not one') end
  last, had, wanted = tonumber(s), tonumber(g), tonumber(d)
end
if seq <= last then return {STALE, last, 0, 0, max(holders, 1), now, born, asked, total, 0} end

local pool = max(WHOLE - total, 0)
local back_since = floor(pool * min(now - since, fill) / fill)
if level + back_since >= pool then
  level, since = pool, now
elseif back_since > 0 then
  level, since = level + back_since, since + math.ceil(back_since * fill / pool)
end

local function counts(g, d) return (g > 0 or d > 0) and 1 or 0 end
total = max(total + (share - had), 0)
asked = max(asked + (demand - wanted), 0)
holders = max(holders + counts(share, demand) - counts(had, wanted), 0)
-- No earlier line of this holder is known: the same free cells may already have been reported.
if last <= 0 then back = 0 end

-- The shares of silent proxies return to the pool; their free cells are lost.
local gone = {}
local drawn = redis.call('HRANDFIELD', KEYS[1], 2, 'WITHVALUES')
for at = 1, #drawn, 2 do
  local s, g, d, heard = string.match(drawn[at + 1], ENTRY)
  if s and drawn[at] ~= own and drawn[at] ~= 'a' and heard + silence < now then
    g, d = tonumber(g), tonumber(d)
    total, asked, holders = max(total - g, 0), max(asked - d, 0), max(holders - counts(g, d), 0)
    gone[#gone + 1] = drawn[at]
  end
end

local rest = max(WHOLE - total, 0)
level = min(level + back, rest)
if known > 0 and known ~= born then learning = max(learning, min(born, now) + relearn) end
local free = rest
if now < learning and learning <= now + relearn then free = 0 end
local target = 0
if demand > 0 then
  if asked < WHOLE then
    target = demand + floor((WHOLE - asked) / (holders + 1))
  else
    target = floor(demand * WHOLE / asked)
  end
end
-- If the shares exceed the whole, all proxies get lower targets, whatever their largest requests need.
if total <= WHOLE then
  target = min(max(target, least), WHOLE)
  if target > 0 and target < share and share - target < WORTH then target = share end
end
local grant = min(max(target - share, 0), free)
local cells = min(level, grant)
level, total, rest = level - cells, total + grant, rest - grant
holders = holders + counts(share + grant, demand) - counts(share, demand)
if rest ~= pool then since = now end

local ends = math.ceil((now + DAY + fill + silence) / 1000 / HOUR) * HOUR
local done = redis.pcall('HSET', KEYS[1],
  'a', write('%.0f %.0f %.0f %.0f %.0f %.0f %.0f %.0f%s', total, asked, holders, level, since, born, learning, max(keep, ends), more),
  own, write('%.0f %.0f %.0f %.0f', seq, share + grant, demand, now))
if type(done) == 'table' and done.err then return done end
-- Where the store's user may not delete entries, they stay, with a share of nothing.
if #gone > 0 then
  local removed = redis.pcall('HDEL', KEYS[1], unpack(gone))
  if type(removed) == 'table' then
    for at = 1, #gone do redis.call('HSET', KEYS[1], gone[at], '0 0 0 0') end
  end
end
if ends > keep then redis.call('EXPIREAT', KEYS[1], write('%.0f', ends)) end
return {GRANTED, grant, target, cells, max(holders, 1), now, born, asked, total, 0}
