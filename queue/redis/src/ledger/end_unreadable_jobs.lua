-- Ends due jobs whose records the caller cannot read. ARGV: 3 least retention of dead jobs, 4... ids. A job that cannot be ended is not due any more.
for at = 4, #ARGV do
    if not pcall(end_unreadable, ARGV[at]) then redis.call('ZREM', DUE, ARGV[at]) end
end
publish_changes()
return {}
