-- The part that all scripts of the ledger share. It precedes each of them. A script that changes jobs ends with
-- `publish_changes()`. The server runs this part at every call, so the functions that only some scripts need are elsewhere.
-- KEYS: 1 jobs by the time at which they are due, 2 ended jobs by the end of their retention.
-- ARGV: 1 the prefix of every key, 2 milliseconds to add to the server's time (tests only), 3... those of the script.
-- All keys of an installation share a hash tag, so a script may build the keys of a job itself.
local DUE, OVER, PREFIX = KEYS[1], KEYS[2], ARGV[1]
local QUEUED, LEASED, RETRY, SUCCEEDED, FAILED, CANCELLED, EXPIRED, DEAD = 0, 1, 2, 3, 4, 5, 6, 7

-- The server's clock, so that leases do not depend on the clocks of workers.
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000) + ARGV[2]

-- The text of a whole number. The server would convert the number as a floating-point number, which takes longer.
local function whole(number) return string.format('%d', number) end

local function job_key(id) return PREFIX .. 'job:' .. id end
local function input_key(id) return PREFIX .. 'input:' .. id end
local function output_key(id) return PREFIX .. 'output:' .. id end
local function attempts_key(id) return PREFIX .. 'attempts:' .. id end

-- The whole record: fields and values in turn, then the bytes of the output.
local function record(id)
    return redis.call('HGETALL', job_key(id)), redis.call('GET', output_key(id))
end

-- Whether this queued job was taken as due, and its publication is not confirmed yet.
local function is_given_out(id, fence, confirmed)
    return fence ~= '0' and fence ~= confirmed and redis.call('ZSCORE', DUE, id) and true
end

-- The changes of counters and the jobs that ended. They are collected here and written once per script, for any number
-- of jobs.
local counts, ended = {}, {}
local function count(pool, counter, by)
    local changes = counts[pool] or {}
    counts[pool] = changes
    changes[counter] = (changes[counter] or 0) + by
end

-- When each job with a confirmed publication is due, and its id, in turn. Collected in the same way.
local checks = {}

-- The pools that may have work now, collected in the same way.
local arrived = {}
local function add_arrival(pool) arrived[pool] = true end

-- Runs the work on one item of a batch, for `answer_batch`. An error of one item must not stop a script between the writes
-- of other items and their counters. So the script goes on, and returns the error at its end.
local failure
local function try(work, ...)
    local is_done, answer = pcall(work, ...)
    if is_done then return answer end
    failure = failure or answer
end

-- Writes the counters and the times of confirmed jobs, and publishes the jobs that ended and the pools that may have work.
local function publish_changes()
    for pool, changes in pairs(counts) do
        for counter, by in pairs(changes) do
            if by ~= 0 then redis.call('HINCRBY', PREFIX .. 'open:' .. pool, counter, by) end
        end
    end
    if #checks > 0 then redis.call('ZADD', DUE, unpack(checks)) end
    if #ended > 0 then redis.call('PUBLISH', PREFIX .. 'ended', table.concat(ended, ' ')) end
    local pools = {}
    for pool in pairs(arrived) do pools[#pools + 1] = pool end
    if #pools > 0 then redis.call('PUBLISH', PREFIX .. 'arrived', table.concat(pools, ' ')) end
end

-- The answer of a script that handles each item of a batch with `try`.
local function answer_batch(answers)
    publish_changes()
    if not failure then return answers end
    return type(failure) == 'table' and failure or redis.error_reply(tostring(failure))
end
