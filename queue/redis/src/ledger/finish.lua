-- Writes how attempts ended. ARGV from 3, six per attempt: id, fence, outcome, and of a success media type, blob and
-- body, of a failure error type and message, of a retry those and the milliseconds to wait.
-- Answers for each the state it is in now, -1 where the lease is lost.
local function finish(job, outcome, first, second, third)
    local key = job_key(job.id)
    if outcome == 'succeeded' then
        end_job(job, 'leased', SUCCEEDED)
        redis.call('HSET', key, 'output_type', first)
        if second == '' then
            redis.call('SET', output_key(job.id), third)
        else
            redis.call('HSET', key, 'output_blob', second)
        end
        return SUCCEEDED
    end
    if outcome ~= 'released' then remember(job, first, second) end
    if outcome == 'failed' then
        end_job(job, 'leased', FAILED, first, second)
        return FAILED
    elseif outcome == 'retry' and job.attempts >= job.max_attempts then
        end_job(job, 'leased', DEAD, first, second)
        return DEAD
    elseif outcome == 'retry' then
        redis.call('HSET', key, 'state', RETRY, 'error_type', first, 'error_message', second)
        redis.call('ZADD', DUE, now + third, job.id)
        count(job.pool, 'leased', -1)
        count(job.pool, 'retry', 1)
        return RETRY
    end
    -- Released: its delivery goes back to the broker, so nobody needs to publish it.
    redis.call('HSET', key, 'state', QUEUED, 'attempts', job.attempts - 1)
    redis.call('ZREM', DUE, job.id)
    count(job.pool, 'leased', -1)
    count(job.pool, 'queued', 1)
    return QUEUED
end

local answers = {}
for at = 3, #ARGV, 6 do
    local job = find(ARGV[at])
    local state = -1
    if is_held(job, ARGV[at + 1]) then
        state = finish(job, ARGV[at + 2], ARGV[at + 3], ARGV[at + 4], ARGV[at + 5])
    end
    answers[#answers + 1] = state
end
done()
return answers
