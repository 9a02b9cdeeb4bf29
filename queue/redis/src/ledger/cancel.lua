-- Ends a job as `cancelled` if it is open. ARGV: 3 id. Answers its record then, empty where there is none.
local job = find(ARGV[3])
if job and job.state <= RETRY then end_job(job, waits_for(job), CANCELLED) end
done()
return { record(ARGV[3]) }
