-- Records how attempts ended. ARGV: 3 least retention of dead jobs, 4 milliseconds until a released job is published again,
-- then six per attempt: id, fence, outcome, and three more. Of `succeeded`: media type, blob and body; of `failed`: error
-- type and message; of `retry`: error type, message and milliseconds to wait.
-- Returns the time in milliseconds, at which the jobs ended. Then per attempt the state of its job afterwards, or -1
-- where the lease is lost.
local function finish(id, fence, outcome, first, second, third)
    local job = find(id)
    if not is_lease_valid(job, fence) then return -1 end
    local key = job_key(job.id)
    if outcome == 'succeeded' then
        if second == '' then
            end_job(job, 'leased', SUCCEEDED, 'output_type', first)
            redis.call('SET', output_key(job.id), third)
        else
            end_job(job, 'leased', SUCCEEDED, 'output_type', first, 'output_blob', second)
        end
        -- Nothing needs its input any more. Repeated submissions are compared by the digest.
        redis.call('UNLINK', input_key(job.id))
        return SUCCEEDED
    end
    if outcome ~= 'released' then record_failed_attempt(job, first, second) end
    if outcome == 'failed' then
        end_with_error(job, 'leased', FAILED, first, second)
        return FAILED
    elseif outcome == 'retry' and job.attempts >= job.max_attempts then
        end_with_error(job, 'leased', DEAD, first, second)
        return DEAD
    elseif outcome == 'retry' then
        redis.call('HSET', key, 'state', RETRY, 'error_type', first, 'error_message', second)
        redis.call('ZADD', DUE, now + third, job.id)
        count(job.pool, 'leased', -1)
        count(job.pool, 'retry', 1)
        return RETRY
    end
    -- Released: the worker requeues its delivery, so the job counts as published.
    redis.call('HSET', key, 'state', QUEUED, 'attempts', job.attempts - 1)
    confirm(job.id, job.fence, job.deadline_at, ARGV[4])
    count(job.pool, 'leased', -1)
    count(job.pool, 'queued', 1)
    return QUEUED
end

local answers = { now }
for at = 5, #ARGV, 6 do
    answers[#answers + 1] =
        try(finish, ARGV[at], ARGV[at + 1], ARGV[at + 2], ARGV[at + 3], ARGV[at + 4], ARGV[at + 5]) or -1
end
return answer_batch(answers)
