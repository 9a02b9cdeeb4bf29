-- Requeues the entries of a consumer and removes it. Entries above the limit are reclaimed later: the consumer is still in
-- the group then, but has no heartbeat.
redis.call('ZREM', KEYS[7], ARGV[1])
for stream = 1, 6 do remove_consumer(stream, ARGV[1], 1000) end
