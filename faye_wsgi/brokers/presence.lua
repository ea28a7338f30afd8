-- Who is in which channel. memory.py says in Python what is announced when.
--
-- ARGV  5 what to do (change, forget, beat, members), 6 start of keys, 7 start of topics, 8 ms until a leave
--       is announced, 9 ms until a silent process is dead, 10 this process; then what the function
--       below says
--
-- Keys behind their start, which has the clock's hash tag, so that they are on the same server:
--   workers        processes, by the time of their last beat (ms)
--   worker:ID      the connections of a process: {channel}{field}
--   here:CHANNEL   {member}WORKER:CONNECTION → data as JSON
--   count:CHANNEL  member → how many connections it has
--   leaving        {channel}MEMBER, by the time at which it has left (ms)
-- {x} is the length of x in bytes, a colon, and x: names may contain anything.

local start, topics, leave_ms, worker_ms, worker = ARGV[6], ARGV[7], ARGV[8], ARGV[9], ARGV[10]
local workers, leaving = start .. 'workers', start .. 'leaving'
local ms = math.floor(now / 1000)
local LATELY = 5000  -- ms within which a process that is alive has called beat: it does each second
local CHUNK = 500  -- of a dead process's connections, and of leaves, in one step

local function sized(text)
  return #text .. ':' .. text
end

-- The sized text that another begins with, and the rest.
local function split(text)
  local colon = string.find(text, ':', 1, true)
  local stop = colon + tonumber(string.sub(text, 1, colon - 1))
  return string.sub(text, colon + 1, stop), string.sub(text, stop + 1)
end

local function come(channel, member, field, data)
  redis.call('SADD', start .. 'worker:' .. worker, sized(channel) .. field)
  if redis.call('HSET', start .. 'here:' .. channel, field, data) == 0 then
    return
  end
  local is_first = redis.call('HINCRBY', start .. 'count:' .. channel, member, 1) == 1
  redis.call('ZREM', leaving, sized(channel) .. member)
  if is_first then
    redis.call(command, topics .. channel, '+' .. sized(member) .. data)
  end
end

local function go(channel, member, field)
  if redis.call('HDEL', start .. 'here:' .. channel, field) == 0 then
    return
  end
  if redis.call('HINCRBY', start .. 'count:' .. channel, member, -1) <= 0 then
    redis.call('HDEL', start .. 'count:' .. channel, member)
    redis.call('ZADD', leaving, ms + leave_ms, sized(channel) .. member)
  end
end

-- Note that this process lives. Whether it was known before: else its connections are forgotten.
local function live()
  local seen = tonumber(redis.call('ZSCORE', workers, worker))
  redis.call('ZADD', workers, ms, worker)
  return seen and seen > ms - worker_ms and 1 or 0
end

-- For each change: channel, member, connection, '+' or '-', data.
local function change()
  local is_known = live()
  for i = 11, #ARGV, 5 do
    local channel, member = ARGV[i], ARGV[i + 1]
    local field = sized(member) .. worker .. ':' .. ARGV[i + 2]
    if ARGV[i + 3] == '+' then
      come(channel, member, field, ARGV[i + 4])
    else
      redis.call('SREM', start .. 'worker:' .. worker, sized(channel) .. field)
      go(channel, member, field)
    end
  end
  return is_known
end

-- Let connections of a process go; whether these were all.
local function forget(id)
  local left = redis.call('SPOP', start .. 'worker:' .. id, CHUNK)
  for _, entry in ipairs(left) do
    local channel, field = split(entry)
    go(channel, split(field), field)
  end
  return #left < CHUNK and 1 or 0
end

-- Whether this process was known, how many have beaten lately, whether there is more to do at once,
-- and the epoch.
local function beat()
  local is_known, is_more = live(), 0
  local due = redis.call('ZRANGEBYSCORE', leaving, '-inf', ms, 'LIMIT', 0, CHUNK)
  for _, pair in ipairs(due) do
    local channel, member = split(pair)
    redis.call('ZREM', leaving, pair)
    redis.call(command, topics .. channel, '-' .. member)
  end
  local dead = redis.call('ZRANGEBYSCORE', workers, '-inf', ms - worker_ms, 'LIMIT', 0, 1)[1]
  if dead and forget(dead) == 1 then
    redis.call('ZREM', workers, dead)
  end
  if dead or #due == CHUNK then
    is_more = 1
  end
  local lately = ms - math.min(LATELY, tonumber(worker_ms))
  return {is_known, redis.call('ZCOUNT', workers, '(' .. lately, '+inf'), is_more, epoch}
end

-- ARGV[11]: a channel. The members of living processes: member, data, …
local function members()
  check_primary()
  local alive, answer = {}, {}
  for _, id in ipairs(redis.call('ZRANGEBYSCORE', workers, '(' .. ms - worker_ms, '+inf')) do
    alive[id] = true
  end
  local here = redis.call('HGETALL', start .. 'here:' .. ARGV[11])
  for i = 1, #here, 2 do
    local member, rest = split(here[i])
    if alive[string.match(rest, '^[^:]*')] then
      answer[#answer + 1] = member
      answer[#answer + 1] = here[i + 1]
    end
  end
  return answer
end

local function forget_own()
  return forget(worker)
end

return ({change = change, forget = forget_own, beat = beat, members = members})[ARGV[5]]()
