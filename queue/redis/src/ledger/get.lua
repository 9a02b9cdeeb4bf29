-- Returns a record with its output and its failed attempts, read in one step. ARGV: 3 id. Empty where there is none.
local fields, output = record(ARGV[3])
return { fields, output, redis.call('LRANGE', attempts_key(ARGV[3]), 0, -1) }
