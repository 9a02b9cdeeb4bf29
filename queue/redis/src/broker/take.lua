-- Takes up to `max` entries, the most urgent first. Records a heartbeat first, so that every consumer with entries has one.
local consumer, max, offset = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])
redis.call('ZADD', KEYS[7], now(offset), consumer)
local taken = {}
for stream = 1, 6 do
  if max > 0 then
    local read = { 'XREADGROUP', 'GROUP', 'workers', consumer, 'COUNT', max, 'STREAMS', KEYS[stream], '>' }
    local found = redis.pcall(unpack(read))
    if found and found.err then
      if not string.find(found.err, '^NOGROUP') then return found end
      redis.call('XGROUP', 'CREATE', KEYS[stream], 'workers', '0', 'MKSTREAM')
      found = redis.call(unpack(read))
    end
    if found then
      local entries = found[1][2]
      max = max - #entries
      taken[#taken + 1] = { stream, entries }
    end
  end
end
return taken
