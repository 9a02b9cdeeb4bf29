-- Returns the live workers of some pools. Changes nothing.
-- KEYS: of each pool, its workers by the time their heartbeat expires.
-- ARGV: 1 the prefix of every key, 2 milliseconds to add to the server's time (tests only).
-- Returns per worker: the number of its pool among KEYS, its id, fields and values in turn.
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000) + ARGV[2]
local answers = {}
for number, pool in ipairs(KEYS) do
    for _, id in ipairs(redis.call('ZRANGEBYSCORE', pool, now, '+inf')) do
        answers[#answers + 1] = { number, id, redis.call('HGETALL', ARGV[1] .. 'worker:' .. id) }
    end
end
return answers
