-- What the ledger's scripts share; it stands before each of them, and `done()` ends each that changes something.
-- KEYS: 1 jobs by when they are due, 2 ended jobs by when their retention is over.
-- ARGV: 1 what every key begins with, 2 milliseconds to add to the server's time (tests only), 3... the script's own.
-- All keys of an installation share a hash tag, so a script may name those of each job itself.
local DUE, OVER, PREFIX = KEYS[1], KEYS[2], ARGV[1]
local QUEUED, LEASED, RETRY, SUCCEEDED, FAILED, CANCELLED, EXPIRED, DEAD = 0, 1, 2, 3, 4, 5, 6, 7

-- The server's clock, so that leases do not depend on the workers'.
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000) + ARGV[2]

local function job_key(id) return PREFIX .. 'job:' .. id end
local function input_key(id) return PREFIX .. 'input:' .. id end
local function output_key(id) return PREFIX .. 'output:' .. id end
local function attempts_key(id) return PREFIX .. 'attempts:' .. id end

-- The narrow part of a job's record as one table; nil where there is none.
local function find(id)
    local found = redis.call('HMGET', job_key(id), 'pool', 'state', 'attempts', 'max_attempts', 'fence', 'lost', 'begun',
        'deadline_at', 'retention', 'error_type', 'claim')
    if not found[1] then return nil end
    return {
        id = id,
        pool = found[1],
        state = tonumber(found[2]),
        attempts = tonumber(found[3]),
        max_attempts = tonumber(found[4]),
        fence = tonumber(found[5]),
        lost = tonumber(found[6]),
        begun = found[7] == '1',
        deadline_at = tonumber(found[8] or nil),
        retention = tonumber(found[9]),
        has_error = found[10] ~= false,
        claim = found[11],
    }
end

-- Whether a claim is the one that holds the job now.
local function is_held(job, fence)
    return job and job.state == LEASED and job.fence == tonumber(fence)
end

-- The whole record: fields and values in turn, then the output's bytes.
local function record(id)
    return redis.call('HGETALL', job_key(id)), redis.call('GET', output_key(id))
end

-- What an open job waits for, as `counts` counts it.
local function waits_for(job)
    if job.state == LEASED then return 'leased' end
    if job.state == RETRY then return 'retry' end
    -- Given out as due, and its publication not confirmed yet.
    if job.fence > 0 and redis.call('ZSCORE', DUE, job.id) then return 'retry' end
    return 'queued'
end

-- Counts are written once per script, however many jobs it moves.
local counts, ended = {}, {}
local function count(pool, what, by)
    local changes = counts[pool] or {}
    counts[pool] = changes
    changes[what] = (changes[what] or 0) + by
end

-- So are the pools that may have got work told.
local arrived = {}
local function arrive(pool) arrived[pool] = true end

-- The lists of jobs that ended badly, by when: over all pools and of one.
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

-- Remembers that the attempt under way has failed; at most the last twenty. Comes before the job itself is changed.
local function remember(job, error_type, error_message)
    local claim = redis.call('HMGET', job_key(job.id), 'worker', 'started_at')
    redis.call('RPUSH', attempts_key(job.id), cjson.encode({ number = job.attempts, worker = claim[1],
        started_at = tonumber(claim[2]), ended_at = now, type = error_type, message = error_message }))
    redis.call('LTRIM', attempts_key(job.id), -20, -1)
end

-- The holder of a leased job vanished, which makes it a suspect. Unless its attempt was begun it is not charged: the
-- holder fell to something else.
local function lose_holder(job)
    job.lost = job.lost + 1
    if job.begun then
        remember(job, ERROR.worker_vanished, 'its worker vanished')
    else
        job.attempts = job.attempts - 1
    end
end

-- Ends an open job that `waits_for` something.
local function end_job(job, what, state, error_type, error_message)
    redis.call('HSET', job_key(job.id), 'state', state, 'finished_at', now)
    if error_type then
        redis.call('HSET', job_key(job.id), 'error_type', error_type, 'error_message', error_message)
    elseif job.has_error then
        redis.call('HDEL', job_key(job.id), 'error_type', 'error_message')
    end
    redis.call('ZREM', DUE, job.id)
    redis.call('ZADD', OVER, now + job.retention, job.id)
    list(job, state)
    count(job.pool, what, -1)
    count(job.pool, 'ended', 1)
    ended[#ended + 1] = job.id
end

local function done()
    for pool, changes in pairs(counts) do
        for what, by in pairs(changes) do
            if by ~= 0 then redis.call('HINCRBY', PREFIX .. 'open:' .. pool, what, by) end
        end
    end
    if #ended > 0 then redis.call('PUBLISH', PREFIX .. 'ended', table.concat(ended, ' ')) end
    local pools = {}
    for pool in pairs(arrived) do pools[#pools + 1] = pool end
    if #pools > 0 then redis.call('PUBLISH', PREFIX .. 'arrived', table.concat(pools, ' ')) end
end
