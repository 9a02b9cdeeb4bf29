-- Deletes an ended job, unless it was cancelled. ARGV: 3 id. Returns its state (-1: no such job) and its blob references.
local job, blobs = find(ARGV[3]), {}
if not job then return { -1, blobs } end
if job.state > RETRY and job.state ~= CANCELLED then delete_job(job, blobs) end
return { job.state, blobs }
