-- Returns the input of a job: media type, blob, bytes. ARGV: 3 id. Nothing for a job that succeeded.
local found = redis.call('HMGET', job_key(ARGV[3]), 'media_type', 'blob', 'state')
if tonumber(found[3] or nil) == SUCCEEDED then return { false, false, false } end
return { found[1], found[2], redis.call('GET', input_key(ARGV[3])) }
