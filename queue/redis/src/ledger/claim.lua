-- Claims jobs. ARGV: 3 least retention of dead jobs, 4 worker, 5 milliseconds of the lease, then per request: id,
-- redelivered (1 or 0), its token, and whether the whole job follows (1 or 0). If it follows: the arguments from which its
-- record is opened. Returns per request a word and two numbers. `granted` and `alone`: fence and attempt; `ended`: state
-- and 0; `held_elsewhere` and `unknown`: 0 and 0.
local worker, lease = ARGV[4], ARGV[5]
local lease_end = whole(now + lease)

-- Whether the worker of the lease is in the roster.
local function is_holder_alive(job)
    local alive_until = tonumber(redis.call('ZSCORE', PREFIX .. 'workers:' .. job.pool, job.worker) or nil)
    return alive_until and alive_until >= now
end

-- Whether another worker may have this leased job. That a broker delivers it again is no proof: the holder may have lost
-- only its connection. So a holder in the roster keeps its lease, but has to renew it within `PATIENCE`. A worker renews
-- once a second.
local PATIENCE = 5000
local function may_take_over(job, redelivered)
    local valid_until = tonumber(redis.call('ZSCORE', DUE, job.id) or nil)
    if valid_until and end_of_gap() + job.lease > now then return false end
    if not valid_until or valid_until <= now then return true end
    if not redelivered then return false end
    if not is_holder_alive(job) then return true end
    redis.call('ZADD', DUE, 'LT', now + math.min(PATIENCE, math.floor(lease / 2)), job.id)
    return false
end

local function claim(job, redelivered, token)
    if job.state == RETRY then return { 'held_elsewhere', 0, 0 } end
    if job.state > RETRY then return { 'ended', job.state, 0 } end
    local counter = counter_of(job)
    if job.state == LEASED then
        find_lease(job)
        if job.claim == token then
            -- The same request is repeated, because its answer was lost.
            redis.call('ZADD', DUE, lease_end, job.id)
            return { job.lost > 0 and 'alone' or 'granted', job.fence, job.attempts }
        end
        if not may_take_over(job, redelivered) then return { 'held_elsewhere', 0, 0 } end
        mark_suspect(job)
        -- Written even if this claim ends the job: after a requeue it must still be a suspect.
        redis.call('HSET', job_key(job.id), 'attempts', job.attempts, 'lost', job.lost)
    end
    if job.deadline_at and job.deadline_at < now then
        end_with_error(job, counter, EXPIRED, ERROR.expired, 'the deadline passed before the job was started')
        return { 'ended', EXPIRED, 0 }
    end
    if job.attempts >= job.max_attempts then
        local message = 'the worker disappeared in the last of ' .. job.attempts .. ' attempts'
        end_with_error(job, counter, DEAD, ERROR.worker_vanished, message)
        return { 'ended', DEAD, 0 }
    end
    local alone = job.lost > 0
    redis.call('HSET', job_key(job.id), 'state', LEASED, 'attempts', job.attempts + 1, 'fence', job.fence + 1,
        'begun', alone and 0 or 1, 'started_at', whole(now), 'worker', worker, 'claim', token, 'lease', lease)
    redis.call('ZADD', DUE, lease_end, job.id)
    count(job.pool, counter, -1)
    count(job.pool, 'leased', 1)
    return { alone and 'alone' or 'granted', job.fence + 1, job.attempts + 1 }
end

local function open_and_claim(id, redelivered, token, follows, body_at)
    local job = find(id)
    if not job and follows then
        open(body_at)
        job = find(id)
    end
    return job and claim(job, redelivered, token)
end

local answers, at = {}, 6
while at <= #ARGV do
    local id, redelivered, token, follows = ARGV[at], ARGV[at + 1] == '1', ARGV[at + 2], ARGV[at + 3] == '1'
    local is_done, answer = pcall(open_and_claim, id, redelivered, token, follows, at + 4)
    if not is_done then
        -- No claim can ever grant this job, so it ends. Otherwise its message would be requeued for ever.
        local is_known, has_ended = pcall(end_unreadable, id)
        if is_known and has_ended then
            answer = { 'ended', FAILED, 0 }
        else
            failure, answer = failure or answer, nil
        end
    end
    answers[#answers + 1] = answer or { 'unknown', 0, 0 }
    at = at + 4 + (follows and OPEN_FIELDS or 0)
end
return answer_batch(answers)
