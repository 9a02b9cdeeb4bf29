-- Deletes ended jobs whose retention is over. ARGV: 3 the most jobs. Returns their number and their blob references.
local over, blobs = redis.call('ZRANGEBYSCORE', OVER, '-inf', now, 'LIMIT', 0, ARGV[3]), {}
for _, id in ipairs(over) do
    local job = find(id)
    if job then delete_job(job, blobs) else redis.call('ZREM', OVER, id) end
end
return { #over, blobs }
