-- Ends an open job as `cancelled`. ARGV: 3 id. Returns its record afterwards, which is empty where there is none.
local job = find(ARGV[3])
if job and job.state <= RETRY then end_job(job, counter_of(job), CANCELLED) end
publish_changes()
return { record(ARGV[3]) }
