-- Returns the input of a job: media type, blob, bytes. ARGV: 3 id.
local found = redis.call('HMGET', job_key(ARGV[3]), 'media_type', 'blob')
return { found[1], found[2], redis.call('GET', input_key(ARGV[3])) }
