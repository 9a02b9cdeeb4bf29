-- A record with its output and its failed attempts, all of one moment. ARGV: 3 id. Empty where there is none.
local fields, output = record(ARGV[3])
return { fields, output, redis.call('LRANGE', attempts_key(ARGV[3]), 0, -1) }
