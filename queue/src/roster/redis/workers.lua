-- The workers of a pool that are alive; changes nothing.
-- KEYS: 1 the workers of the pool by until when they count as alive.
-- ARGV: 1 what every key begins with, 2 milliseconds to add to the server's time (tests only).
-- Answers per worker: id, fields and values in turn.
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000) + ARGV[2]
local answers = {}
for _, id in ipairs(redis.call('ZRANGEBYSCORE', KEYS[1], now, '+inf')) do
    answers[#answers + 1] = { id, redis.call('HGETALL', ARGV[1] .. 'worker:' .. id) }
end
return answers
