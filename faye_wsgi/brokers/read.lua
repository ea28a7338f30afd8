-- Read what is kept of channels; a channel that is not known is born.
--
-- KEYS  for each channel: its last number, its log
-- ARGV  5 ms of the last number; for each channel: since ('' for the newest), limit ('' for all)
-- Returns the clock's number and epoch, how many were born, and for each channel its last number and
-- the entries of its log.

local births = 0

local function entries(log, since, limit)
  if limit == '0' or since == '' and limit == '' then
    return {}
  elseif since == '' then
    return redis.call('XREVRANGE', log, '+', '-', 'COUNT', limit)
  elseif limit == '' then
    return redis.call('XRANGE', log, '(' .. since .. '-0', '+')
  end
  return redis.call('XRANGE', log, '(' .. since .. '-0', '+', 'COUNT', limit)
end

local answer = {'', epoch, 0}
for i = 2, #KEYS, 2 do
  local last = redis.call('GET', KEYS[i])
  if not last then
    -- Above all positions that were given before: they cannot vouch for this channel.
    last = text(next_number(0))
    births = births + 1
    redis.call('SET', KEYS[i], last, 'PX', ARGV[5])
    redis.call('DEL', KEYS[i + 1])
  elseif redis.call('PTTL', KEYS[i]) < ARGV[5] / 2 then
    redis.call('PEXPIRE', KEYS[i], ARGV[5])  -- a channel that is subscribed to is not forgotten
  end
  answer[#answer + 1] = last
  answer[#answer + 1] = entries(KEYS[i + 1], ARGV[i + 4], ARGV[i + 5])
end
check_primary()
if births > 0 then
  redis.call('HSET', KEYS[1], 'number', text(number))
end
answer[1] = text(number)
answer[3] = births
return answer
