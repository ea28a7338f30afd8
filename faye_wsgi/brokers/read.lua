-- Read what is kept of channels; a channel that is not known is born.
--
-- KEYS  for each channel: its last number, its log
-- ARGV  5 ms of the last number; for each channel: since ('' for the newest), limit ('' for all),
--       size in bytes ('' for any)
-- Returns the clock's number and epoch, how many were born, and for each channel its last number and
-- the entries of its log.

local births = 0
local CHUNK = 64  -- entries that are read at once where they have a size: what is too much is dropped

local function some(log, since, place, count)
  if since == '' then
    return redis.call('XREVRANGE', log, place or '+', '-', 'COUNT', count)
  end
  return redis.call('XRANGE', log, place or '(' .. since .. '-0', '+', 'COUNT', count)
end

-- Up to the entry that reaches the size.
local function sized(log, since, limit, size)
  local found, bytes, place = {}, 0, nil
  while #found < limit do
    local part = some(log, since, place, math.min(CHUNK, limit - #found))
    for _, entry in ipairs(part) do
      if bytes >= size then
        return found
      end
      found[#found + 1] = entry
      bytes = bytes + #entry[2][4]
    end
    if #part < CHUNK then
      return found
    end
    place = '(' .. part[#part][1]
  end
  return found
end

local function entries(log, since, limit, size)
  if limit == '0' or since == '' and limit == '' then
    return {}
  elseif size ~= '' then
    return sized(log, since, tonumber(limit) or math.huge, tonumber(size))
  elseif limit == '' then
    return redis.call('XRANGE', log, '(' .. since .. '-0', '+')
  end
  return some(log, since, nil, limit)
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
  local first = 3 + i / 2 * 3
  answer[#answer + 1] = entries(KEYS[i + 1], ARGV[first], ARGV[first + 1], ARGV[first + 2])
end
check_primary()
if births > 0 then
  redis.call('HSET', KEYS[1], 'number', text(number))
end
answer[1] = text(number)
answer[3] = births
return answer
