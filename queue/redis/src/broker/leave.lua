-- Requeues the entries of a consumer and removes it. Entries above the limit are reclaimed later. Until then the
-- consumer stays in the group without a heartbeat.
redis.call('ZREM', KEYS[7], ARGV[1])
for stream = 1, 6 do remove_consumer(stream, ARGV[1], 1000) end
