-- Records the consumer's heartbeat. Returns the stream and the id of each entry that the consumer holds.
local consumer, limit, offset = ARGV[1], ARGV[2], tonumber(ARGV[3])
redis.call('ZADD', KEYS[7], now(offset), consumer)
local held = {}
for stream = 1, 6 do
  local pending = redis.pcall('XPENDING', KEYS[stream], 'workers', '-', '+', limit, consumer)
  if not pending.err then
    for _, entry in ipairs(pending) do held[#held + 1] = { stream, entry[1] } end
  end
end
return held
