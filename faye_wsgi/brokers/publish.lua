-- Number, keep and send a publication: memory.py says in Python what this does.
--
-- KEYS  2 the channel's last number, 3 its log, 4 the idempotency key, if there is one
-- ARGV  5 payload, 6 how many are kept, 7 for how many ms, 8 ms of the last number, 9 ms of the key,
--       10 the topic of the channel's feeds
-- Returns the position.

local payload, history = ARGV[5], ARGV[6]

if KEYS[4] then
  local first = redis.call('GET', KEYS[4])
  if first then
    check_primary()
    return first
  end
end

local last = tonumber(redis.call('GET', KEYS[2]))
local birth = not last and next_number(0)
local this = next_number((last or birth) + 1)
redis.call('HSET', KEYS[1], 'number', text(this))
if birth or history == '0' then
  redis.call('DEL', KEYS[3])
end
local previous = text(last or birth)
if history ~= '0' then
  redis.call('XADD', KEYS[3], 'MAXLEN', '=', history, text(this) .. '-0',
    'p', previous, 'd', payload)
  redis.call('PEXPIRE', KEYS[3], ARGV[7])
end
redis.call('SET', KEYS[2], text(this), 'PX', ARGV[8])

local position = text(this) .. '-' .. epoch
if KEYS[4] then
  redis.call('SET', KEYS[4], position, 'PX', ARGV[9])
end
redis.call(command, ARGV[10], text(this) .. ' ' .. previous .. ' ' .. epoch .. ' ' .. payload)
return position
