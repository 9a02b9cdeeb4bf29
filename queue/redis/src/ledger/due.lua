-- Takes due jobs. Each becomes `queued`, and is due again unless its publication is confirmed in time. A queued job past its
-- deadline ends instead.
-- ARGV: 3 least retention of dead jobs, 4 the most jobs, 5 the most bytes of their inputs (a single job may have more),
-- 6 milliseconds until a job is due again. Returns two lists. The first has per job: id, the fence of its publication, fields and values in turn, the bytes of
-- its input. The second has the ids of jobs that cannot be taken, because a key has a wrong type.

-- The longest time in milliseconds until an open job is due. nil for a confirmed publication: its time is hours away.
local function longest_wait(id)
    local job = find(id)
    if not job then return nil end
    if job.state == RETRY then return 0 end
    if job.state == LEASED then
        find_lease(job)
        return job.lease
    end
    local confirmed = redis.call('HGET', job_key(id), 'confirmed')
    if tonumber(confirmed or nil) ~= job.fence then return ARGV[6] end
end

-- After the clock was set back, brings the times forward that are too far away now. Each call looks at a part of the open
-- jobs, so that it is short.
local function bring_forward()
    local cursor = redis.call('GET', PREFIX .. 'set_back')
    if not cursor then return end
    local found = redis.call('ZSCAN', DUE, cursor, 'COUNT', 2000)
    for at = 1, #found[2], 2 do
        local id, due_at = found[2][at], tonumber(found[2][at + 1])
        if due_at > now then
            -- A record that cannot be read must not stop the others.
            local is_read, wait = pcall(longest_wait, id)
            if is_read and wait then redis.call('ZADD', DUE, 'LT', now + wait, id) end
        end
    end
    if found[1] == '0' then
        redis.call('DEL', PREFIX .. 'set_back')
    else
        redis.call('SET', PREFIX .. 'set_back', found[1])
    end
end

local answers, unreadable, bytes = {}, {}, 0
local resumed_at = end_of_gap()
record_look()
bring_forward()

-- Takes one job. Returns `true` if the jobs before it have enough bytes. The counters come last, so that they stay right
-- after an error.
local function take(id)
    local job = find(id)
    if job and job.state == LEASED then find_lease(job) end
    if not job then
        -- The record was deleted by hand.
        redis.call('ZREM', DUE, id)
    elseif job.state == QUEUED and job.deadline_at and job.deadline_at < now then
        end_with_error(job, counter_of(job), EXPIRED, ERROR.expired, 'the deadline passed before the job was started')
    elseif job.state == LEASED and resumed_at + job.lease > now then
        redis.call('ZADD', DUE, resumed_at + job.lease, id)
    else
        bytes = bytes + redis.call('STRLEN', input_key(id))
        if #answers > 0 and bytes > tonumber(ARGV[5]) then return true end
        local counter = counter_of(job)
        if job.state == LEASED then mark_suspect(job) end
        redis.call('HSET', job_key(id), 'state', QUEUED, 'fence', job.fence + 1, 'lost', job.lost,
            'attempts', job.attempts)
        redis.call('ZADD', DUE, now + ARGV[6], id)
        answers[#answers + 1] =
            { id, job.fence + 1, redis.call('HGETALL', job_key(id)), redis.call('GET', input_key(id)) }
        count(job.pool, counter, -1)
        count(job.pool, 'retry', 1)
        add_arrival(job.pool)
    end
end

for _, id in ipairs(redis.call('ZRANGEBYSCORE', DUE, '-inf', now, 'LIMIT', 0, ARGV[4])) do
    local is_taken, is_full = pcall(take, id)
    if is_taken and is_full then break end
    if not is_taken then
        -- It must not stop the others, now and at the next look.
        unreadable[#unreadable + 1] = id
        if not pcall(end_unreadable, id) then redis.call('ZREM', DUE, id) end
    end
end
publish_changes()
return { answers, unreadable }
