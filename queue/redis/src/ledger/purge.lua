-- Deletes ended jobs whose retention is over. ARGV: 3 the most jobs. Returns their number and their blob references.
local over, blobs = redis.call('ZRANGEBYSCORE', OVER, '-inf', now, 'LIMIT', 0, ARGV[3]), {}
local function delete(id)
    local job = find(id)
    if job then delete_job(job, blobs) else redis.call('ZREM', OVER, id) end
end
for _, id in ipairs(over) do
    if not pcall(delete, id) then
        -- A key of a wrong type must not stop the others. The retention of its job is over too.
        redis.call('UNLINK', job_key(id), input_key(id), output_key(id), attempts_key(id))
        redis.call('ZREM', OVER, id)
    end
end
return { #over, blobs }
