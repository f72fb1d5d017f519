-- Each request has the next token of a file; after the last one, the first again.
local requests, last = {}, 0

function init(arguments)
    for token in io.lines(arguments[1]) do
        requests[#requests + 1] = wrk.format("GET", nil, { ["Authorization"] = "Bearer " .. token })
    end
end

function request()
    last = last % #requests + 1
    return requests[last]
end
