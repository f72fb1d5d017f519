-- Each request has the next token of a file, after the last one the first again: as "bearer", as "cookie", or as "origin",
-- which is a bearer token with an Origin header. The third argument is the number of tokens that are left out at first.
local requests, last = {}, 0

local function headers(token, kind)
    if kind == "cookie" then
        return { ["Cookie"] = "tocsin_token=" .. token }
    end
    local found = { ["Authorization"] = "Bearer " .. token }
    if kind == "origin" then
        found["Origin"] = "https://app.example.com"
    end
    return found
end

function init(arguments)
    last = tonumber(arguments[3])
    for token in io.lines(arguments[1]) do
        requests[#requests + 1] = wrk.format("GET", nil, headers(token, arguments[2]))
    end
end

function request()
    last = last % #requests + 1
    return requests[last]
end
