-- Ends an open job whose record cannot be used, so that it is neither due nor delivered again. Returns whether it ended.
-- Raises an error if the record cannot even be ended.
local function end_unreadable(id)
    local job = find(id)
    if not job or job.state > RETRY then return false end
    job.retention, job.fence = job.retention or 0, job.fence or 0
    end_with_error(job, counter_of(job), FAILED, ERROR.input_unreadable, 'the ledger cannot read the record of the job')
    return true
end
