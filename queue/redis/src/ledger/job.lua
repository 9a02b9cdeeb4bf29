-- The functions of the scripts that claim, end, requeue and delete jobs.

-- The fields of a job's record that most scripts need. nil where there is no record. Every field has a cost in every call.
local function find(id)
    local found = redis.call('HMGET', job_key(id), 'pool', 'state', 'attempts', 'max_attempts', 'fence', 'lost',
        'deadline_at', 'retention', 'error_type')
    if not found[1] then return nil end
    return {
        id = id,
        pool = found[1],
        state = tonumber(found[2]),
        attempts = tonumber(found[3]),
        max_attempts = tonumber(found[4]),
        fence = tonumber(found[5]),
        lost = tonumber(found[6]),
        deadline_at = tonumber(found[7] or nil),
        retention = tonumber(found[8]),
        has_error = found[9] ~= false,
    }
end

-- Adds the fields of the lease to a leased job.
local function find_lease(job)
    local found = redis.call('HMGET', job_key(job.id), 'begun', 'claim', 'worker', 'lease')
    job.begun, job.claim, job.worker = found[1] == '1', found[2], found[3]
    -- The length of the lease in milliseconds.
    job.lease = tonumber(found[4] or '30000')
end

-- The end of the last gap in milliseconds, 0 for none. If no process has looked for due jobs or asked for the upkeep for a while, the
-- server or all processes were away, and no lease could be renewed. So a lease gets its whole length from the end of the gap on.
local GAP = 3000
local function end_of_gap()
    local looked_at = tonumber(redis.call('GET', PREFIX .. 'looked_at') or nil)
    if looked_at and now - looked_at > GAP then
        redis.call('MSET', PREFIX .. 'looked_at', now, PREFIX .. 'resumed_at', now)
        return now
    end
    if looked_at and looked_at - now > GAP then
        -- The clock was set back. `due` follows it.
        redis.call('MSET', PREFIX .. 'looked_at', now, PREFIX .. 'set_back', 0)
    end
    local resumed_at = tonumber(redis.call('GET', PREFIX .. 'resumed_at') or '0')
    -- A time in the future means that the clock was set back.
    return resumed_at <= now and resumed_at or 0
end

-- Records that a process can reach the ledger. One write a second is enough to notice a gap.
local function record_look()
    local looked_at = tonumber(redis.call('GET', PREFIX .. 'looked_at') or '0')
    if math.abs(now - looked_at) >= 1000 then redis.call('SET', PREFIX .. 'looked_at', now) end
end

-- Whether the lease with this fence is the current lease of the job.
local function is_lease_valid(job, fence)
    return job and job.state == LEASED and job.fence == tonumber(fence)
end

-- The counter of the pool that includes this open job.
local function counter_of(job)
    if job.state == LEASED then return 'leased' end
    if job.state == RETRY then return 'retry' end
    -- A job that was never due is not looked at further: most jobs never are.
    if job.fence == 0 then return 'queued' end
    local confirmed = redis.call('HGET', job_key(job.id), 'confirmed')
    return is_given_out(job.id, tostring(job.fence), confirmed) and 'retry' or 'queued'
end

-- The lists of failed and dead jobs by the time they ended, of all pools and of one.
local LISTS = { [FAILED] = 'failed', [DEAD] = 'dead' }
local function list(job, state)
    if LISTS[state] then
        redis.call('ZADD', PREFIX .. LISTS[state], now, job.id)
        redis.call('ZADD', PREFIX .. LISTS[state] .. ':' .. job.pool, now, job.id)
    end
end
local function unlist(job)
    if LISTS[job.state] then
        redis.call('ZREM', PREFIX .. LISTS[job.state], job.id)
        redis.call('ZREM', PREFIX .. LISTS[job.state] .. ':' .. job.pool, job.id)
    end
end

-- Records that the current attempt has failed. Keeps the last twenty. Must come before the job's record is changed.
local function record_failed_attempt(job, error_type, error_message)
    local claim = redis.call('HMGET', job_key(job.id), 'worker', 'started_at')
    redis.call('RPUSH', attempts_key(job.id), cjson.encode({ number = job.attempts, worker = claim[1],
        started_at = tonumber(claim[2]), ended_at = now, type = error_type, message = error_message }))
    redis.call('LTRIM', attempts_key(job.id), -20, -1)
end

-- Makes a leased job a suspect, because its worker disappeared. An attempt that had not begun does not count: the job
-- cannot be the reason then.
local function mark_suspect(job)
    job.lost = job.lost + 1
    if job.begun then
        record_failed_attempt(job, ERROR.worker_vanished, 'the worker disappeared while the job ran')
    else
        job.attempts = job.attempts - 1
    end
end

-- The least milliseconds for which failed and dead jobs are kept, so that they can be requeued. The first argument of each
-- script that may end jobs in these states.
local function retention_of(job, state)
    return LISTS[state] and math.max(job.retention, tonumber(ARGV[3])) or job.retention
end

-- Ends an open job. `counter` is the counter that includes it. Further fields and values in turn are written with the end.
local function end_job(job, counter, state, ...)
    redis.call('HSET', job_key(job.id), 'state', state, 'finished_at', whole(now), ...)
    if job.has_error and (...) ~= 'error_type' then
        redis.call('HDEL', job_key(job.id), 'error_type', 'error_message')
    end
    redis.call('ZREM', DUE, job.id)
    redis.call('ZADD', OVER, whole(now + retention_of(job, state)), job.id)
    list(job, state)
    count(job.pool, counter, -1)
    count(job.pool, 'ended', 1)
    ended[#ended + 1] = job.id
end

local function end_with_error(job, counter, state, error_type, error_message)
    end_job(job, counter, state, 'error_type', error_type, 'error_message', error_message)
end
