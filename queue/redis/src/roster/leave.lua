#!lua flags=allow-oom
-- Deletes a worker. KEYS: 1 the worker's hash. ARGV: 1 the prefix of every key, 2 the worker's id.
local pool = redis.call('HGET', KEYS[1], 'pool')
if pool then
    redis.call('ZREM', ARGV[1] .. 'workers:' .. pool, ARGV[2])
    redis.call('DEL', KEYS[1])
end
