-- Processes one line of one proxy about one account: what the proxy was granted, what it used, and how much more it wants. `src/lease.rs`
-- describes the protocol.
--
-- KEYS[1]  the account, a hash: `a` for the account itself, `p:HOLDER` for each proxy. Named LIMIT:GENERATION:WINDOW LIMIT    another hash:
-- what an operator has changed about the limit (`generation`, `set`, `raise`, `until`), written by `envoy/budgets.py` ARGV     holder seq
-- granted used want least budget start end reclaim born relearn
--          times in milliseconds since 1970; end 0: never; reclaim 0: off; born 0: the proxy knows of no account
-- answers  status granted total free holders now born generation set raise
--
-- Numbers are doubles, exact up to 2^53. Later versions may append further numbers to a field; this version keeps them.

local DAY, HOUR, EPOCH = 86400000, 3600, 10000
local EARLY, LATE = 10000, 60000
local GRANTED, STALE, TOO_EARLY, TOO_LATE = 0, 1, 2, 3
local MOST = 2 ^ 53
local write = string.format

local function number(text)
  return #text <= 16 and string.find(text, '^%d+$') and tonumber(text)
end

local arg = {}
for at = 2, 12 do
  arg[at] = number(ARGV[at] or '')
  if not arg[at] then return redis.error_reply('ERR bursar: argument ' .. at .. ' is no number') end
end
local seq, granted, used, want, least, budget = arg[2], arg[3], arg[4], arg[5], arg[6], arg[7]
local opens, closes, reclaim, known, relearn = arg[8], arg[9], arg[10], arg[11], arg[12]

local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
if now + EARLY < opens then return {TOO_EARLY, 0, 0, 0, 0, now, 0, 0, 0, 0} end
if closes > 0 and now > closes + LATE then return {TOO_LATE, 0, 0, 0, 0, now, 0, 0, 0, 0} end

-- An operator's changes. After a reset, another account counts, of which the line's sender was granted nothing yet.
local account = KEYS[1]
local limit, said, window = string.match(account, '^(.+):(%d+):(%d+)$')
if not limit then return redis.error_reply('ERR bursar: the key is not one') end
local changes = redis.call('HMGET', limit, 'generation', 'set', 'raise', 'until')
for at = 1, 4 do
  changes[at] = number(changes[at] or '0')
  if not changes[at] then return redis.error_reply('ERR bursar: a change of the limit is no number') end
end
local latest, set, raise, ends = changes[1], changes[2], changes[3], changes[4]
if ends > 0 and now >= ends then raise = 0 end
if set > 0 then budget = set end
budget = math.min(budget + raise, MOST)
local generation = tonumber(said)
if latest > generation then
  generation, granted, used, known = latest, 0, 0, 0
  account = limit .. ':' .. write('%.0f', generation) .. ':' .. window
end

-- The account's field has seven numbers, then the budget of the last line, which an older version did not write. A proxy's entry has four
-- numbers. Both patterns keep what later versions append.
local ACCOUNT = '^(%d+) (%d+) (%d+) (%d+) (%d+) (%d+) (%d+)(.*)$'
local ENTRY = '^(%d+) (%d+) (%d+) (%d+)(.*)$'

local own = 'p:' .. ARGV[1]
local stored = redis.call('HMGET', account, 'a', own)
local total, epoch, present, before, born, learning, keep, more = 0, 0, 0, 0, now, 0, 0, ''
if stored[1] then
  local t, e, c, p, b, l, k, rest = string.match(stored[1], ACCOUNT)
  if not t then return redis.error_reply('ERR bursar: the account is not one') end
  total, epoch, present, before = tonumber(t), tonumber(e), tonumber(c), tonumber(p)
  born, learning, keep, more = tonumber(b), tonumber(l), tonumber(k), string.match(rest, '^ %d+(.*)$') or ''
end
local last, before_granted, last_epoch = -1, 0, -1
if stored[2] then
  local s, g, _, e = string.match(stored[2], ENTRY)
  if not s then return redis.error_reply('ERR bursar: the entry is not one') end
  last, before_granted, last_epoch = tonumber(s), tonumber(g), tonumber(e)
end

-- The line is late or doubled: a later line counts. The answer reports the present state, which the sender may have missed.
if seq <= last then
  return {STALE, last, total, math.max(budget - total, 0), math.max(present, before, 1), now, born, generation, set, raise}
end

-- The number of proxies: those that sent a line in this epoch or in the one before. Epochs only increase, even if the clock is set back.
local this_epoch = math.floor(now / EPOCH)
if this_epoch > epoch then
  before = this_epoch == epoch + 1 and present or 0
  epoch, present = this_epoch, 0
end
if last_epoch < epoch then present = present + 1 end
local holders = math.max(present, before, 1)

-- The sender knows an older account: so data was lost, and not all holders have reported again what they were granted.
if known > 0 and known ~= born then
  learning = math.max(learning, math.min(born, now) + relearn)
end

-- What the sender reports as its grant counts, whether it is more or less than before.
-- The difference is computed first, since a sum of large numbers would not be exact.
total = math.max(total + (granted - before_granted), 0)

local fields = {}
if reclaim > 0 then
  local drawn = redis.call('HRANDFIELD', account, 2, 'WITHVALUES')
  for at = 1, #drawn, 2 do
    local s, g, u, e, rest = string.match(drawn[at + 1], ENTRY)
    if s and drawn[at] ~= own and drawn[at] ~= 'a' and (e + 1) * EPOCH + reclaim < now and tonumber(g) > tonumber(u) then
      total = math.max(total - (g - u), 0)
      fields[#fields + 1] = drawn[at]
      fields[#fields + 1] = write('%s %s %s %s%s', s, u, u, e, rest)
    end
  end
end

local free = math.max(budget - total, 0)
if now < learning and learning <= now + relearn then free = 0 end
local share = math.floor(free / (2 * holders))
local grant = math.min(want, free, math.max(share, math.min(least, free)))
total = total + grant

-- An account is kept for a day after its window and for a day after its last line. An expiry in the past would delete the account, and with
-- it what was spent.
local until_ = 0
if closes > 0 then
  until_ = math.ceil((math.max(closes, now) + DAY) / 1000 / HOUR) * HOUR
end
fields[#fields + 1] = 'a'
fields[#fields + 1] = write('%.0f %.0f %.0f %.0f %.0f %.0f %.0f %.0f%s', total, epoch, present, before, born, learning, math.max(keep, until_), budget, more)
fields[#fields + 1] = own
fields[#fields + 1] = write('%.0f %.0f %.0f %.0f', seq, granted + grant, used, epoch)
-- All fields are written by one command, so that a store without free memory refuses all of them.
local done = redis.pcall('HSET', account, unpack(fields))
if type(done) == 'table' and done.err then return done end
if until_ > keep then redis.call('EXPIREAT', account, write('%.0f', until_)) end
-- A store that has lost its data learns of a reset from the proxies that know of it.
if generation > latest then redis.call('HSET', limit, 'generation', write('%.0f', generation)) end
return {GRANTED, grant, total, free - grant, holders, now, born, generation, set, raise}
