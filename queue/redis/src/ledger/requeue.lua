-- Makes a failed or dead job due, as if it had just been submitted. ARGV: 3 id. With a new input: 4 its digest,
-- 5 media type, 6 blob, 7 body. Returns the state before (-1: no such job) and the blob of the replaced input.
local job = find(ARGV[3])
if not job then return { -1, false } end
if job.state ~= FAILED and job.state ~= DEAD then return { job.state, false } end
local key, replaced = job_key(job.id), false
-- The fence grows, so that a late result of an earlier worker is rejected. `lost`, the error and the attempts stay.
redis.call('HSET', key, 'state', QUEUED, 'attempts', 0, 'fence', job.fence + 1, 'begun', 0)
redis.call('HDEL', key, 'finished_at', 'deadline_at')
if ARGV[4] then
    replaced = redis.call('HGET', key, 'blob')
    redis.call('HSET', key, 'digest', ARGV[4], 'media_type', ARGV[5])
    if ARGV[6] == '' then
        redis.call('HDEL', key, 'blob')
        redis.call('SET', input_key(job.id), ARGV[7])
    else
        redis.call('HSET', key, 'blob', ARGV[6])
        redis.call('UNLINK', input_key(job.id))
    end
end
redis.call('ZREM', OVER, job.id)
unlist(job)
redis.call('ZADD', DUE, now, job.id)
count(job.pool, 'retry', 1)
add_arrival(job.pool)
publish_changes()
return { job.state, replaced }
