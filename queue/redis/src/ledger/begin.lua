-- Makes an attempt count, even if its worker disappears. ARGV: 3 id, 4 fence. Returns whether the lease is valid.
local job = find(ARGV[3])
if not is_lease_valid(job, ARGV[4]) then return 0 end
redis.call('HSET', job_key(job.id), 'begun', 1)
return 1
