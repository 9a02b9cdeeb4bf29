-- Takes confirmed publications from what is due. ARGV from 3: id and fence in turn.
for at = 3, #ARGV, 2 do
    local job = find(ARGV[at])
    if job and job.state == QUEUED and job.fence == tonumber(ARGV[at + 1]) then
        local what = waits_for(job)
        redis.call('ZREM', DUE, job.id)
        count(job.pool, what, -1)
        count(job.pool, 'queued', 1)
    end
end
done()
