-- Requeues the entries of consumers whose heartbeat has expired, removes these consumers from the group, and returns the
-- number of entries. Does nothing if the last search was less than `every` milliseconds ago.
local timeout, every, limit, offset = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
local time = now(offset)
local searched_at = tonumber(redis.call('GET', KEYS[8]) or '0')
if time >= searched_at and time - searched_at < every then return 0 end
redis.call('SET', KEYS[8], time)
local left = limit
for stream = 1, 6 do
  local consumers = redis.pcall('XINFO', 'CONSUMERS', KEYS[stream], 'workers')
  if not consumers.err then
    for _, fields in ipairs(consumers) do
      local name = fields[2]
      local heartbeat_at = redis.call('ZSCORE', KEYS[7], name)
      if left > 0 and (not heartbeat_at or time - heartbeat_at >= timeout) then
        left = left - remove_consumer(stream, name, left)
      end
    end
  end
end
redis.call('ZREMRANGEBYSCORE', KEYS[7], '-inf', string.format('%.0f', time - timeout))
-- With more entries to reclaim, the next search may follow at once.
if left == 0 then redis.call('DEL', KEYS[8]) end
return limit - left
