-- Confirms publications. ARGV: 3 milliseconds until each is repeated, then id and fence in turn.
local function confirm_publication(id, fence)
    local job = find(id)
    if job and job.state == QUEUED and job.fence == tonumber(fence) then
        local counter = counter_of(job)
        confirm(job, ARGV[3])
        count(job.pool, counter, -1)
        count(job.pool, 'queued', 1)
    end
end

for at = 4, #ARGV, 2 do try(confirm_publication, ARGV[at], ARGV[at + 1]) end
return answer_batch({})
