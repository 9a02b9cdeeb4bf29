-- Forgets ended jobs whose retention is over. ARGV: 3 how many at most. Answers how many, and the blobs of them.
local over, blobs = redis.call('ZRANGEBYSCORE', OVER, '-inf', now, 'LIMIT', 0, ARGV[3]), {}
for _, id in ipairs(over) do
    local job = find(id)
    if job then forget(job, blobs) else redis.call('ZREM', OVER, id) end
end
return { #over, blobs }
