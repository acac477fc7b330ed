-- Load for wrk (benchmarks/serving_load.py): requests for random users, at full speed or with a pause, and figures as JSON.
-- Arguments: a path in which USER stands for the id, the number of users, the mean pause between two requests of a connection in ms.
local path, users, pause

function setup(thread)
  thread:set("seed", math.random(1, 1000000))
end

function init(args)
  path, users, pause = args[1], tonumber(args[2]), tonumber(args[3])
  math.randomseed(seed)
  if pause == 0 then
    delay = nil
  end
end

-- Random, or all connections would send at the same moment.
function delay()
  return math.random(math.floor(pause / 2), math.ceil(pause * 3 / 2))
end

function request()
  return wrk.format("GET", (path:gsub("USER", tostring(math.random(users)))))
end

function done(summary, latency, requests)
  local errors = summary.errors
  io.write(string.format(
    'figures {"answers": %d, "seconds": %.6f, "mean_ms": %.6f, "p50_ms": %.6f, "p99_ms": %.6f, "max_ms": %.6f, "failed": %d}\n',
    summary.requests, summary.duration / 1e6, latency.mean / 1e3, latency:percentile(50) / 1e3, latency:percentile(99) / 1e3,
    latency.max / 1e3, errors.connect + errors.read + errors.write + errors.status + errors.timeout))
end
