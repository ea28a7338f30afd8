-- The beginning of every script: the clock of all channels.
--
-- KEYS  1 the clock: its number, the epoch, and the run of the server that it was last used in
-- ARGV  1 the server's run, 2 an epoch for a new life, 3 whether a new run keeps all data (1 or 0),
--       4 PUBLISH or SPUBLISH
--
-- The first write of a script is one that Redis refuses when it may not write (no memory, no disk,
-- no replicas, a replica itself). So a script is done as a whole, or nothing of it.

local run, command = ARGV[1], ARGV[4]
local clock = redis.call('HMGET', KEYS[1], 'number', 'epoch', 'run')
local number, epoch = tonumber(clock[1]), clock[2]
local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000000 + tonumber(time[2])  -- µs

-- Numbers are doubles here: exact below 2^53, but never to be written as 1.7e+15.
local function text(n)
  return string.format('%.0f', n)
end

local function next_number(least)
  number = math.max(number + 1, now, least)
  return number
end

-- A write that changes nothing and needs no memory, for what is only read: a primary whose place
-- another one has taken, and which has therefore too few replicas, must not tell it. Where the disk
-- takes no writes, it is told.
local function check_primary()
  local reply = redis.pcall('PERSIST', KEYS[1])
  if type(reply) == 'table' and reply.err and not string.find(reply.err, 'MISCONF', 1, true) then
    error(reply.err)
  end
end

-- Without a clock the data are gone. With that of another run the last writes may be.
if not number or clock[3] ~= run then
  number = number or now
  if not (clock[1] and epoch) or ARGV[3] == '0' then
    epoch = ARGV[2]
  end
  redis.call('HSET', KEYS[1], 'number', text(number), 'epoch', epoch, 'run', run)
end
