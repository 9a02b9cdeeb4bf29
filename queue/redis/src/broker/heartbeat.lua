-- Records the consumer's heartbeat. Returns the milliseconds since its former heartbeat (-1: none), and the stream and the
-- id of each entry that the consumer holds.
local consumer, limit, offset = ARGV[1], ARGV[2], tonumber(ARGV[3])
local time = now(offset)
local former = tonumber(redis.call('ZSCORE', KEYS[7], consumer) or nil)
redis.call('ZADD', KEYS[7], time, consumer)
local held = {}
for stream = 1, 6 do
  local pending = redis.pcall('XPENDING', KEYS[stream], 'workers', '-', '+', limit, consumer)
  if not pending.err then
    for _, entry in ipairs(pending) do held[#held + 1] = { stream, entry[1] } end
  end
end
return { former and time - former or -1, held }
