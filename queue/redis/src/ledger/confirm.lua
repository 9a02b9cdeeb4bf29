-- Confirms publications of queued jobs.

-- Records that the broker has a message of this queued job. The job is due at its deadline, or after some time in case the
-- broker lost the message. `publish_changes` writes this time.
local function confirm(id, fence, deadline_at, after)
    redis.call('HSET', job_key(id), 'confirmed', fence)
    checks[#checks + 1] = whole(math.min(now + after, deadline_at or math.huge))
    checks[#checks + 1] = id
end

-- Confirms the publication with this fence, unless the job has changed since.
local function confirm_publication(id, fence, after)
    local found = redis.call('HMGET', job_key(id), 'state', 'fence', 'confirmed', 'deadline_at', 'pool')
    if tonumber(found[1] or nil) ~= QUEUED or found[2] ~= fence then return end
    if is_given_out(id, found[2], found[3]) then
        count(found[5], 'retry', -1)
        count(found[5], 'queued', 1)
    end
    confirm(id, fence, tonumber(found[4] or nil), after)
end
