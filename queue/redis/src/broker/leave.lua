-- Gives back all that a consumer holds and forgets it. What is over the limit is for the sweep, which finds a stranger.
redis.call('ZREM', KEYS[7], ARGV[1])
for stream = 1, 6 do retire(stream, ARGV[1], 1000) end
