-- Confirms publications, so that their jobs are no longer due. ARGV from 3: id and fence in turn.
for at = 3, #ARGV, 2 do
    local job = find(ARGV[at])
    if job and job.state == QUEUED and job.fence == tonumber(ARGV[at + 1]) then
        local counter = counter_of(job)
        redis.call('ZREM', DUE, job.id)
        count(job.pool, counter, -1)
        count(job.pool, 'queued', 1)
    end
end
publish_changes()
