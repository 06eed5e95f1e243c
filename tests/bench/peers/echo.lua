-- The request of the echo figure, for wrk.
wrk.method = "POST"
wrk.headers["Content-Type"] = "application/json"
wrk.body = '{"customer": 4711, "items": [{"sku": "A-100", "count": 2}, {"sku": "B-7", "count": 1}], "note": "leave at the door"}'

local bad = 0
function response(status)
    if status ~= 200 then bad = bad + 1 end
end
function done(summary)
    io.write(string.format("errors: %d\n", summary.errors.connect + summary.errors.read + summary.errors.write + summary.errors.timeout + summary.errors.status))
end
