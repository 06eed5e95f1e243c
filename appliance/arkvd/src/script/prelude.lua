-- What scripts see.  Called once per interpreter with the functions of the host; gives the function
-- that runs a script.
local host = ...

local error, getmetatable, ipairs, next, pairs, pcall, rawequal, rawget, rawset, select, setfenv,
  setmetatable, tonumber, tostring, type, unpack, xpcall, assert =
  error, getmetatable, ipairs, next, pairs, pcall, rawequal, rawget, rawset, select, setfenv,
  setmetatable, tonumber, tostring, type, unpack, xpcall, assert
local randomseed = math.randomseed

local guarded = setmetatable({}, { __mode = "k" })

local function refuse()
  error("Attempt to modify a readonly table", 2)
end

-- A table that shows another and cannot be changed.
local function guard(inner)
  local outer = setmetatable({}, { __index = inner, __newindex = refuse, __metatable = false })
  guarded[outer] = true
  return outer
end

local function copy(from, without)
  local to = {}
  for name, value in pairs(from) do
    if not without[name] then to[name] = value end
  end
  return to
end

local redis = {
  LOG_DEBUG = 0, LOG_VERBOSE = 1, LOG_NOTICE = 2, LOG_WARNING = 3,
  REPL_ALL = 3, REPL_AOF = 1, REPL_SLAVE = 2, REPL_REPLICA = 2, REPL_NONE = 0,
  REDIS_VERSION = "7.0.15", REDIS_VERSION_NUM = 0x07000f,
}

function redis.sha1hex(...)
  if select("#", ...) ~= 1 then
    error({ err = "ERR wrong number of arguments" }, 0)
  end
  return host.sha1hex(tostring((...)))
end

function redis.error_reply(...)
  local text = ...
  if select("#", ...) ~= 1 or type(text) ~= "string" then
    return { err = "ERR wrong number or type of arguments" }
  end
  if text:sub(1, 1) == "-" then text = text:sub(2) end
  if not text:find(" ", 1, true) then text = "ERR " .. text end
  return { err = text }
end

function redis.status_reply(...)
  local text = ...
  if select("#", ...) ~= 1 or type(text) ~= "string" then
    return { err = "ERR wrong number or type of arguments" }
  end
  return { ok = text }
end

function redis.log(...)
  local level = ...
  if select("#", ...) < 2 then error({ err = "ERR redis.log() requires two arguments or more." }, 0) end
  if type(level) ~= "number" then
    error({ err = "ERR First argument must be a number (log level)." }, 0)
  end
  if level < 0 or level > 3 then error({ err = "ERR Invalid log level." }, 0) end
  local words = { select(2, ...) }
  for index, word in ipairs(words) do words[index] = tostring(word) end
  host.log(level, table.concat(words, " "))
end

function redis.setresp(version)
  if version ~= 2 and version ~= 3 then error({ err = "ERR RESP version must be 2 or 3." }, 0) end
end

function redis.replicate_commands() return true end
function redis.set_repl() end
function redis.breakpoint() return false end
function redis.debug() end

-- Lua's own matcher cannot be stopped; these stand on the host's, which can.
-- `host.find(text, pattern, from, plain)` gives nothing, or first, last, and what was caught.
local texts = copy(string, { dump = true, gfind = true })
local find, sub = host.find, string.sub

local function start(text, init)
  init = init or 1
  if init < 0 then init = #text + init + 1 end
  if init > #text then return #text + 1 end
  return init < 1 and 1 or init
end

-- Other than a text a number is taken, as in Lua.
local function as_text(value, index, name)
  local kind = type(value)
  if kind == "string" then return value end
  if kind == "number" then return tostring(value) end
  error("bad argument #" .. index .. " to '" .. name .. "' (string expected, got "
    .. (value == nil and "no value" or kind) .. ")", 3)
end

function texts.find(text, pattern, init, plain)
  text, pattern = as_text(text, 1, "find"), as_text(pattern, 2, "find")
  return find(text, pattern, start(text, init), plain and true or false)
end

local function whole_or_caught(text, first, last, ...)
  if not first then return nil end
  if select("#", ...) == 0 then return sub(text, first, last) end
  return ...
end

function texts.match(text, pattern, init)
  text, pattern = as_text(text, 1, "match"), as_text(pattern, 2, "match")
  return whole_or_caught(text, find(text, pattern, start(text, init), false))
end

function texts.gmatch(text, pattern)
  text, pattern = as_text(text, 1, "gmatch"), as_text(pattern, 2, "gmatch")
  local at = 1
  local function step(first, last, ...)
    if not first then
      at = nil
      return nil
    end
    at = last < first and first + 1 or last + 1
    return whole_or_caught(text, first, last, ...)
  end
  return function()
    if not at or at > #text + 1 then return nil end
    -- An anchor has no meaning here.
    return step(host.find_next(text, pattern, at))
  end
end

function texts.gsub(text, pattern, replacement, most)
  text, pattern = as_text(text, 1, "gsub"), as_text(pattern, 2, "gsub")
  local kind = type(replacement)
  if kind == "number" then replacement, kind = tostring(replacement), "string" end
  if kind ~= "string" and kind ~= "table" and kind ~= "function" then
    error("bad argument #3 to 'gsub' (string/function/table expected)", 2)
  end
  local parts, count, at = {}, 0, 1
  local anchored = sub(pattern, 1, 1) == "^"

  local function replace(first, last, ...)
    local whole = sub(text, first, last)
    local caught = { ... }
    local value
    if kind == "string" then
      value = host.fill(replacement, whole, caught)
    else
      local key = caught[1]
      if key == nil then key = whole end
      if kind == "table" then
        value = replacement[key]
      elseif select("#", ...) == 0 then
        value = replacement(whole)
      else
        value = replacement(...)
      end
    end
    if not value then return whole end
    if type(value) ~= "string" and type(value) ~= "number" then
      error("invalid replacement value (a " .. type(value) .. ")", 3)
    end
    return value
  end

  local function step(first, last, ...)
    if not first then return false end
    parts[#parts + 1] = sub(text, at, first - 1)
    parts[#parts + 1] = replace(first, last, ...)
    count = count + 1
    if last < first then
      -- Nothing was taken: the next byte stays.
      parts[#parts + 1] = sub(text, first, first)
      at = first + 1
    else
      at = last + 1
    end
    return true
  end

  while at <= #text + 1 and (not most or count < most) do
    local found
    if anchored then
      found = step(find(text, pattern, at, false))
    else
      found = step(host.find_next(text, pattern, at))
    end
    if not found or anchored then break end
  end
  parts[#parts + 1] = sub(text, at)
  return table.concat(parts), count
end

local libraries = {
  string = guard(texts),
  table = guard(copy(table, {})),
  math = guard(copy(math, {})),
  coroutine = guard(copy(coroutine, {})),
  cjson = guard({
    encode = host.json_encode,
    decode = host.json_decode,
    null = host.json_decode("null"),
  }),
}
getmetatable("").__index = libraries.string
getmetatable("").__metatable = false

local function set_raw(target, name, value)
  if guarded[target] then error("Attempt to modify a readonly table", 2) end
  return rawset(target, name, value)
end

local base = {
  _VERSION = "Lua 5.1", assert = assert, error = error, getmetatable = getmetatable,
  ipairs = ipairs, next = next, pairs = pairs, pcall = pcall, rawequal = rawequal,
  rawget = rawget, rawset = set_raw, select = select, setmetatable = setmetatable,
  tonumber = tonumber, tostring = tostring, type = type, unpack = unpack, xpcall = xpcall,
}
for name, library in pairs(libraries) do base[name] = library end

return function(script, call, keys, argv)
  local own = copy(redis, {})
  -- The line of an error is found two levels above the host's function: both forms call it alike.
  function own.call(...)
    local reply = call(...)
    if type(reply) == "table" and reply.err then error(reply, 0) end
    return reply
  end
  function own.pcall(...)
    local reply = call(...)
    return reply
  end
  local globals = setmetatable({ KEYS = keys, ARGV = argv, redis = guard(own) }, { __index = base })
  local environment = setmetatable({}, {
    __metatable = false,
    __newindex = refuse,
    __index = function(_, name)
      local value = globals[name]
      if value == nil then
        error("Script attempted to access nonexistent global variable '" .. tostring(name) .. "'", 2)
      end
      return value
    end,
  })
  globals._G = environment
  guarded[environment] = true
  randomseed(0)
  setfenv(script, environment)
  return pcall(script)
end
