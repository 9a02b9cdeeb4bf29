-- Deletes an ended job, and adds its blob references to `blobs`.
local function delete_job(job, blobs)
    for _, blob in ipairs({ 'blob', 'output_blob' }) do
        local reference = redis.call('HGET', job_key(job.id), blob)
        if reference then blobs[#blobs + 1] = reference end
    end
    redis.call('UNLINK', job_key(job.id), input_key(job.id), output_key(job.id), attempts_key(job.id))
    redis.call('ZREM', OVER, job.id)
    unlist(job)
end
