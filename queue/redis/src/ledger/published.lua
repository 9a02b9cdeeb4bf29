-- Confirms publications. ARGV: 3 milliseconds until each is repeated, then id and fence in turn.
for at = 4, #ARGV, 2 do
    local job = find(ARGV[at])
    if job and job.state == QUEUED and job.fence == tonumber(ARGV[at + 1]) then
        local counter = counter_of(job)
        confirm(job, ARGV[3])
        count(job.pool, counter, -1)
        count(job.pool, 'queued', 1)
    end
end
publish_changes()
