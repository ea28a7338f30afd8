-- Who is in which channel. memory.py says in Python what is announced when.
--
-- ARGV  5 what to do (change, forget, keep, beat, members, roster), 6 start of keys, 7 start of
--       topics, 8 ms until a leave is announced, 9 ms until a silent process is dead, 10 ms until
--       all is forgotten, 11 this process; then what the function below says
--
-- Keys behind their start, which has the clock's hash tag, so that they are on the same server:
--   workers        processes, by the time of their last beat (ms)
--   worker:ID      the connections of a process: {channel}{field}
--   here:CHANNEL   {member}WORKER:CONNECTION → data as JSON
--   count:CHANNEL  member → how many connections it has
--   known:CHANNEL  member → its data, as announced, until its leave is announced
--   leaving        {channel}MEMBER, by the time at which it has left (ms)
-- {x} is the length of x in bytes, a colon, and x: names may contain anything.
--
-- All of them expire, or they would stay for ever when the last process has died. Processes that
-- live prolong them: what is theirs at each beat, those of their channels by 'keep'.

local start, topics, leave_ms, worker_ms, keep_ms = ARGV[6], ARGV[7], ARGV[8], ARGV[9], ARGV[10]
local worker = ARGV[11]
local workers, leaving, mine = start .. 'workers', start .. 'leaving', start .. 'worker:' .. worker
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

local function prolong(...)
  for _, key in ipairs({...}) do
    redis.call('PEXPIRE', key, keep_ms)
  end
end

local function prolong_channel(channel)
  prolong(start .. 'here:' .. channel, start .. 'count:' .. channel, start .. 'known:' .. channel)
end

local function come(channel, member, field, data)
  redis.call('SADD', mine, sized(channel) .. field)
  if redis.call('HSET', start .. 'here:' .. channel, field, data) == 1 then
    if redis.call('HINCRBY', start .. 'count:' .. channel, member, 1) == 1 then
      redis.call('ZREM', leaving, sized(channel) .. member)
    end
  end
  if redis.call('HGET', start .. 'known:' .. channel, member) ~= data then
    redis.call('HSET', start .. 'known:' .. channel, member, data)
    redis.call(command, topics .. channel, '+' .. sized(member) .. data)
  end
end

-- A connection has gone. If that was the member's last one, its leave is due after ``delay_ms``.
local function go(channel, member, field, delay_ms)
  if redis.call('HDEL', start .. 'here:' .. channel, field) == 0 then
    return
  end
  if redis.call('HINCRBY', start .. 'count:' .. channel, member, -1) <= 0 then
    redis.call('HDEL', start .. 'count:' .. channel, member)
    redis.call('ZADD', leaving, ms + delay_ms, sized(channel) .. member)
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
  local is_known, touched = live(), {}
  for i = 12, #ARGV, 5 do
    local channel, member = ARGV[i], ARGV[i + 1]
    touched[channel] = true
    local field = sized(member) .. worker .. ':' .. ARGV[i + 2]
    if ARGV[i + 3] == '+' then
      come(channel, member, field, ARGV[i + 4])
    else
      redis.call('SREM', mine, sized(channel) .. field)
      go(channel, member, field, leave_ms)
    end
  end
  for channel in pairs(touched) do
    prolong_channel(channel)
  end
  prolong(workers, leaving, mine)
  return is_known
end

-- ARGV[12] and so on: the channels in which this process has members.
local function keep()
  for i = 12, #ARGV do
    prolong_channel(ARGV[i])
  end
  return 1
end

-- Let connections of a process go; whether these were all.
local function forget(id, delay_ms)
  local left = redis.call('SPOP', start .. 'worker:' .. id, CHUNK)
  for _, entry in ipairs(left) do
    local channel, field = split(entry)
    go(channel, split(field), field, delay_ms)
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
    redis.call('HDEL', start .. 'known:' .. channel, member)
    redis.call(command, topics .. channel, '-' .. member)
  end
  local dead = redis.call('ZRANGEBYSCORE', workers, '-inf', ms - worker_ms, 'LIMIT', 0, 1)[1]
  if dead and forget(dead, leave_ms) == 1 then
    redis.call('ZREM', workers, dead)
  end
  if dead or #due == CHUNK then
    is_more = 1
  end
  prolong(workers, leaving, mine)
  local lately = ms - math.min(LATELY, tonumber(worker_ms))
  return {is_known, redis.call('ZCOUNT', workers, '(' .. lately, '+inf'), is_more, epoch}
end

-- ARGV[12]: a channel. The members of living processes: member, data, …
local function members()
  check_primary()
  local alive, answer = {}, {}
  for _, id in ipairs(redis.call('ZRANGEBYSCORE', workers, '(' .. ms - worker_ms, '+inf')) do
    alive[id] = true
  end
  local here = redis.call('HGETALL', start .. 'here:' .. ARGV[12])
  for i = 1, #here, 2 do
    local member, rest = split(here[i])
    if alive[string.match(rest, '^[^:]*')] then
      answer[#answer + 1] = member
      answer[#answer + 1] = here[i + 1]
    end
  end
  return answer
end

-- ARGV[12]: a channel. The members as they were announced: member, data, …
local function roster()
  check_primary()
  return redis.call('HGETALL', start .. 'known:' .. ARGV[12])
end

-- This process notes its connections again in a moment. The call for that may fail, and come late:
-- so their members leave as if this process had died meanwhile, and no sooner.
local function forget_own()
  return forget(worker, worker_ms)
end

local actions = {
  change = change, forget = forget_own, keep = keep, beat = beat, members = members, roster = roster
}
return actions[ARGV[5]]()
