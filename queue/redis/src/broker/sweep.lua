-- Gives back what silent consumers hold and removes them from the group; how many entries. Once per `every` milliseconds.
local silent_after, every, limit, offset = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
local time = now(offset)
local swept_at = tonumber(redis.call('GET', KEYS[8]) or '0')
if time >= swept_at and time - swept_at < every then return 0 end
redis.call('SET', KEYS[8], time)
local left = limit
for stream = 1, 6 do
  local consumers = redis.pcall('XINFO', 'CONSUMERS', KEYS[stream], 'workers')
  if not consumers.err then
    for _, fields in ipairs(consumers) do
      local name = fields[2]
      local heard_at = redis.call('ZSCORE', KEYS[7], name)
      if left > 0 and (not heard_at or time - heard_at > silent_after) then
        left = left - retire(stream, name, left)
      end
    end
  end
end
redis.call('ZREMRANGEBYSCORE', KEYS[7], '-inf', '(' .. string.format('%.0f', time - silent_after))
if left == 0 then redis.call('DEL', KEYS[8]) end
return limit - left
