-- Takes due jobs: each is `queued` then, and due again if nobody confirms its publication in time.
-- ARGV: 3 how many at most, 4 how many bytes of inputs (one job may have more), 5 milliseconds until it is due again.
-- Answers per job: id, the publication's fence, fields and values in turn, the input's bytes.
local answers, bytes = {}, 0
for _, id in ipairs(redis.call('ZRANGEBYSCORE', DUE, '-inf', now, 'LIMIT', 0, ARGV[3])) do
    local job = find(id)
    if not job then
        -- Somebody deleted the record by hand.
        redis.call('ZREM', DUE, id)
    else
        bytes = bytes + redis.call('STRLEN', input_key(id))
        if #answers > 0 and bytes > tonumber(ARGV[4]) then break end
        count(job.pool, waits_for(job), -1)
        count(job.pool, 'retry', 1)
        arrive(job.pool)
        if job.state == LEASED then lose_holder(job) end
        redis.call('HSET', job_key(id), 'state', QUEUED, 'fence', job.fence + 1, 'lost', job.lost,
            'attempts', job.attempts)
        redis.call('ZADD', DUE, now + ARGV[5], id)
        answers[#answers + 1] =
            { id, job.fence + 1, redis.call('HGETALL', job_key(id)), redis.call('GET', input_key(id)) }
    end
end
done()
return answers
