#!lua flags=allow-oom
-- Adds or renews a worker, and deletes the expired workers of its pool.
-- KEYS: 1 the worker's hash, 2 the workers of its pool by the time their heartbeat expires, 3 only of a worker with
-- measurements: the hash of the pool's last measurements.
-- ARGV: 1 the prefix of every key, 2 milliseconds to add to the server's time (tests only), 3 the worker's id, 4 its pool,
-- 5 milliseconds until its heartbeat expires, 6... fields and values in turn; the last four fields are its measurements.
local PREFIX, id, pool = ARGV[1], ARGV[3], ARGV[4]
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000) + ARGV[2]
for _, expired in ipairs(redis.call('ZRANGEBYSCORE', KEYS[2], '-inf', '(' .. string.format('%.0f', now))) do
    redis.call('ZREM', KEYS[2], expired)
    redis.call('DEL', PREFIX .. 'worker:' .. expired)
end
local former = redis.call('HGET', KEYS[1], 'pool')
if former and former ~= pool then redis.call('ZREM', PREFIX .. 'workers:' .. former, id) end
redis.call('ZADD', KEYS[2], now + ARGV[5], id)
redis.call('HSET', KEYS[1], 'pool', pool, unpack(ARGV, 6))
if KEYS[3] then redis.call('HSET', KEYS[3], unpack(ARGV, #ARGV - 7)) end
