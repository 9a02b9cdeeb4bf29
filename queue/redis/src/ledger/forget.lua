-- Forgets one job that has ended and was not cancelled. ARGV: 3 id. Answers its state (-1: no such job) and the blobs of it.
local job, blobs = find(ARGV[3]), {}
if not job then return { -1, blobs } end
if job.state > RETRY and job.state ~= CANCELLED then forget(job, blobs) end
return { job.state, blobs }
