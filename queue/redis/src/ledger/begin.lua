-- Makes an attempt count whatever becomes of its holder. ARGV: 3 id, 4 fence. Answers whether the lease still holds.
local job = find(ARGV[3])
if not is_held(job, ARGV[4]) then return 0 end
redis.call('HSET', job_key(job.id), 'begun', 1)
return 1
