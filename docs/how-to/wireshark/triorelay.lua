-- triorelay for Wireshark and tshark: what travels between clients and a relay, in the words of docs/reference/wire.md.
--
-- It reads two kinds of captures:
--   * TCP, on the port that the preferences name (9734): hello, answer, frames, events, requests
--   * files of `triorelay monitor --pcapng`: frames as they were routed, with source and destination
-- In both, whole messages are put together again, for each source and destination. A message whose checksum is right is
-- shown with the frames that complete it.
--
-- How it works: bytes of one direction come in order. The first time that Wireshark shows a packet, a parser with a state
-- for each direction turns it into a list of items, which is kept; every later time the list is shown again.

local triorelay = Proto("triorelay", "triorelay")

triorelay.prefs.port = Pref.uint("TCP port", 9734, "The port on which the relay listens")

local MOST_BYTES = 1200000 -- an encoded message of 1 MiB is a little shorter than this

local OPTIONS = { { 0x01, "ACK" }, { 0x02, "EVENTS" }, { 0x04, "TOKEN" }, { 0x08, "SHARE" }, { 0x10, "LOSSY" } }
local REFUSALS = {
  [0] = "welcome",
  [1] = "the id is taken",
  [2] = "not allowed to hold this id",
  [3] = "bad hello",
  [4] = "the relay is full",
  [5] = "the relay is shutting down",
  [6] = "authentication required or failed",
  [7] = "unavailable now, try again",
}
local EVENTS = {
  [1] = "JOINED",
  [2] = "LEFT",
  [3] = "NO_ROUTE",
  [4] = "DROPPED",
  [5] = "DRAINING",
  [6] = "PONG",
  [7] = "SYNCED",
  [8] = "FLUSHED",
  [9] = "CLOSING",
}
local REQUESTS = { [6] = "PING", [7] = "LIST", [8] = "FLUSH" }
local CLOSE_REASONS = {
  [1] = "left",
  [2] = "reset",
  [3] = "slow_consumer",
  [4] = "replaced",
  [5] = "draining",
  [6] = "closed by an operator",
  [7] = "denied by a new policy",
  [8] = "fenced by another relay of the realm",
  [9] = "hello_timeout",
  [10] = "refused",
  [11] = "crowded_out",
  [12] = "error",
}
local STREAM_KINDS = { [0] = "data", [1] = "end", [2] = "close", [3] = "broken", [8] = "open" }
local CALL_KINDS = { [4] = "CALL", [5] = "REPLY", [6] = "FAIL", [7] = "CANCEL" }
local CALL_REASONS = {
  [1] = "this client serves no calls",
  [2] = "the handler failed",
  [3] = "too many calls at once",
  [4] = "serving ended",
}

local f = triorelay.fields
f.hello_id = ProtoField.uint8("triorelay.hello.id", "Id", base.HEX)
f.hello_options = ProtoField.uint8("triorelay.hello.options", "Options", base.HEX)
f.hello_token = ProtoField.bytes("triorelay.hello.token", "Token")
f.answer_id = ProtoField.uint8("triorelay.answer.id", "Id", base.HEX)
f.answer_code = ProtoField.uint8("triorelay.answer.code", "Code", base.DEC, REFUSALS)
f.source = ProtoField.uint8("triorelay.source", "Source", base.HEX)
f.destination = ProtoField.uint8("triorelay.destination", "Destination", base.HEX)
f.count = ProtoField.uint32("triorelay.frames", "Frames")
f.data = ProtoField.bytes("triorelay.data", "Data")
f.event_code = ProtoField.uint8("triorelay.event.code", "Event", base.DEC, EVENTS)
f.event_argument = ProtoField.uint8("triorelay.event.argument", "Argument", base.HEX)
f.event_reason = ProtoField.uint8("triorelay.event.reason", "Reason", base.DEC, CLOSE_REASONS)
f.request_code = ProtoField.uint8("triorelay.request.code", "Request", base.DEC, REQUESTS)
f.request_argument = ProtoField.uint8("triorelay.request.argument", "Argument", base.HEX)
f.message = ProtoField.bytes("triorelay.message", "Payload")
f.message_text = ProtoField.string("triorelay.message.text", "Text")
f.message_crc = ProtoField.uint32("triorelay.message.crc", "CRC-32", base.HEX)
f.stream_kind = ProtoField.uint8("triorelay.stream.kind", "Stream", base.DEC, STREAM_KINDS)
f.stream_number = ProtoField.uint32("triorelay.stream.number", "Receiver's number", base.HEX)
f.stream_own = ProtoField.uint32("triorelay.stream.own", "Sender's number", base.HEX)
f.call_kind = ProtoField.uint8("triorelay.call.kind", "Call", base.DEC, CALL_KINDS)
f.call_number = ProtoField.uint32("triorelay.call.number", "Number")
f.call_payload = ProtoField.bytes("triorelay.call.payload", "Payload")
f.call_reason = ProtoField.uint8("triorelay.call.reason", "Reason", base.DEC, CALL_REASONS)
f.call_text = ProtoField.string("triorelay.call.text", "Text")

local tcp_stream = Field.new("tcp.stream")

-- An id as it is typed and shown: a visible ASCII character, else 0x and two hex digits.
local function id_name(id)
  if id >= 0x21 and id <= 0x7e then
    return string.char(id)
  end
  return string.format("0x%02x", id)
end

-- CRC-32 as in zlib.

local band, bxor, rshift = bit.band, bit.bxor, bit.rshift
local crc_table = {}
for n = 0, 255 do
  local value = n
  for _ = 1, 8 do
    value = band(value, 1) == 1 and bxor(0xedb88320, rshift(value, 1)) or rshift(value, 1)
  end
  crc_table[n] = value
end

local function crc32(data)
  local crc = 0xffffffff
  for at = 1, #data do
    crc = bxor(crc_table[band(bxor(crc, data:byte(at)), 0xff)], rshift(crc, 8))
  end
  return bxor(crc, 0xffffffff) % 0x100000000
end

local function number_at(data, at)
  local a, b, c, d = data:byte(at, at + 3)
  return ((a * 256 + b) * 256 + c) * 256 + d
end

-- COBS: each block begins with its length; between two blocks stands a zero, but after one of 254 bytes.
local function cobs_decode(data)
  local parts, at = {}, 1
  while at <= #data do
    local length = data:byte(at)
    if length == 0 or at + length - 1 > #data then
      return nil
    end
    parts[#parts + 1] = data:sub(at + 1, at + length - 1)
    at = at + length
    if length < 255 and at <= #data then
      parts[#parts + 1] = "\0"
    end
  end
  return table.concat(parts)
end

-- The payload of an encoded block and its CRC-32, or nil where it does not check.
local function decode_message(block)
  local plain = cobs_decode(block)
  if plain == nil or #plain < 4 then
    return nil
  end
  local payload, crc = plain:sub(1, -5), number_at(plain, #plain - 3)
  if crc32(payload) ~= crc then
    return nil
  end
  return payload, crc
end

-- Whole messages in the data of one source and destination. `blocks` keeps what has begun.
local function feed_messages(blocks, key, data, found)
  local block = blocks[key] or { parts = {}, size = 0 }
  blocks[key] = block
  local at = 1
  while true do
    local zero = data:find("\0", at, true)
    local piece = data:sub(at, zero and zero - 1 or -1)
    block.parts[#block.parts + 1] = piece
    block.size = block.size + #piece
    if block.size > MOST_BYTES then
      block.parts = {}
    end
    if zero == nil then
      return
    end
    if block.size > 0 and block.size <= MOST_BYTES then
      local payload, crc = decode_message(table.concat(block.parts))
      if payload ~= nil then
        found[#found + 1] = { kind = "message", payload = payload, crc = crc }
      end
    end
    block.parts, block.size = {}, 0
    at = zero + 1
  end
end

-- Parsing. An item is what is shown: its kind, where it stands in the packet, and what it holds.

-- The state of one TCP connection: what the hello asked for, and what has begun in each direction.
local function new_connection()
  return { said_hello = false, answered = false, wants_answer = false, events = false, blocks = {}, packets = {} }
end

-- Where the hello at the beginning of `bytes` ends; nil where more is needed, 1 where there is none.
local function hello_end(bytes)
  if #bytes < 2 then
    return nil
  end
  local mark = bytes:byte(2)
  if mark < 0x80 or mark > 0x9f then
    return 1
  end
  if band(mark, 4) == 0 then
    return 3
  end
  if #bytes < 3 or #bytes < 3 + bytes:byte(3) then
    return nil
  end
  return 4 + bytes:byte(3)
end

local function parse_hello(connection, bytes, items)
  local finish = hello_end(bytes)
  if finish == nil then
    return nil
  end
  connection.said_hello = true
  if finish > 1 then
    local options = bytes:byte(2) - 0x80
    connection.events = band(options, 2) ~= 0
    connection.wants_answer = band(options, 3) ~= 0
    items[#items + 1] = { kind = "hello", start = 0, length = finish - 1, id = bytes:byte(1), options = options }
  end
  return finish
end

-- One run: frames with one id, from `at` on. Returns the byte after it and its data.
local function run_at(bytes, at)
  local id, data = bytes:byte(at), {}
  while at + 1 <= #bytes and bytes:byte(at) == id do
    data[#data + 1] = bytes:sub(at + 1, at + 1)
    at = at + 2
  end
  return at, table.concat(data)
end

-- Pairs of frames with id 0 are events or requests. Returns the byte after them.
local function parse_pairs(kind, bytes, at, items)
  while at + 3 <= #bytes and bytes:byte(at) == 0 and bytes:byte(at + 2) == 0 do
    local code, argument = bytes:byte(at + 1), bytes:byte(at + 3)
    items[#items + 1] = { kind = kind, start = at - 1, length = 4, code = code, argument = argument }
    at = at + 4
  end
  return at
end

-- Bytes of one direction. Returns the items, and how many bytes are left over that need more to follow.
local function parse_stream(connection, to_relay, bytes)
  local items, at = {}, 1
  if to_relay and not connection.said_hello then
    at = parse_hello(connection, bytes, items)
    if at == nil then
      return items, #bytes
    end
  elseif not to_relay and connection.wants_answer and not connection.answered then
    if #bytes < 2 then
      return items, #bytes
    end
    connection.answered = true
    items[#items + 1] = { kind = "answer", start = 0, length = 2, id = bytes:byte(1), code = bytes:byte(2) }
    at = 3
  end
  while at + 1 <= #bytes do
    local before = at
    if connection.events and bytes:byte(at) == 0 then
      at = parse_pairs(to_relay and "request" or "event", bytes, at, items)
      if at == before then
        break
      end
    else
      local id, data = bytes:byte(at), nil
      at, data = run_at(bytes, at)
      local item = { kind = "frames", start = before - 1, length = at - before, data = data }
      item[to_relay and "destination" or "source"] = id
      items[#items + 1] = item
      feed_messages(connection.blocks, (to_relay and "to" or "from") .. id, data, items)
    end
  end
  return items, #bytes - at + 1
end

-- Showing.

local function show_hello(item, tvb, tree)
  local names = {}
  for _, option in ipairs(OPTIONS) do
    if band(item.options, option[1]) ~= 0 then
      names[#names + 1] = option[2]
    end
  end
  local text = "hello " .. (item.id == 0 and "for any id" or id_name(item.id))
  text = table.concat({ text, table.unpack(names) }, " ")
  local branch = tree:add(triorelay, tvb:range(item.start, item.length), text)
  branch:add(f.hello_id, tvb:range(item.start, 1))
  branch:add(f.hello_options, tvb:range(item.start + 1, 1), item.options):append_text(" " .. table.concat(names, " "))
  if band(item.options, 4) ~= 0 then
    branch:add(f.hello_token, tvb:range(item.start + 3, item.length - 3))
  end
  return text
end

local function show_answer(item, tvb, tree)
  local text = item.code == 0 and "welcome " or "refused "
  text = text .. id_name(item.id) .. (item.code == 0 and "" or ": " .. (REFUSALS[item.code] or "code " .. item.code))
  local branch = tree:add(triorelay, tvb:range(item.start, item.length), text)
  branch:add(f.answer_id, tvb:range(item.start, 1))
  branch:add(f.answer_code, tvb:range(item.start + 1, 1))
  return text
end

local function show_event(item, tvb, tree)
  local text = EVENTS[item.code] or "event " .. item.code
  if item.code >= 1 and item.code <= 4 then
    text = text .. " " .. id_name(item.argument)
  elseif item.code == 9 then
    text = text .. " " .. (CLOSE_REASONS[item.argument] or item.argument)
  elseif item.argument ~= 0 then
    text = text .. " " .. item.argument
  end
  local branch = tree:add(triorelay, tvb:range(item.start, item.length), text)
  branch:add(f.event_code, tvb:range(item.start + 1, 1))
  branch:add(item.code == 9 and f.event_reason or f.event_argument, tvb:range(item.start + 3, 1))
  return text
end

local function show_request(item, tvb, tree)
  local text = (REQUESTS[item.code] or "request " .. item.code) .. " " .. item.argument
  local branch = tree:add(triorelay, tvb:range(item.start, item.length), text)
  branch:add(f.request_code, tvb:range(item.start + 1, 1))
  branch:add(f.request_argument, tvb:range(item.start + 3, 1))
  return text
end

local function show_frames(item, tvb, tree)
  local names = {}
  if item.source then
    names[#names + 1] = "from " .. id_name(item.source)
  end
  if item.destination then
    names[#names + 1] = "to " .. id_name(item.destination)
  end
  local text = #item.data .. (#item.data == 1 and " frame " or " frames ") .. table.concat(names, " ")
  local range = tvb:range(item.start, item.length)
  local branch = tree:add(triorelay, range, text)
  if item.source then
    branch:add(f.source, range, item.source):append_text(" (" .. id_name(item.source) .. ")")
  end
  if item.destination then
    branch:add(f.destination, range, item.destination):append_text(" (" .. id_name(item.destination) .. ")")
  end
  branch:add(f.count, range, #item.data)
  branch:add(f.data, ByteArray.new(item.data, true):tvb("Data bytes"):range())
  return text
end

-- What two clients may have agreed on: the first byte of a message is then its kind.
local function show_kind(payload, range, branch)
  local kind = payload:byte(1)
  if kind == nil or kind > 8 or #payload < 5 then
    return ""
  elseif STREAM_KINDS[kind] then
    branch:add(f.stream_kind, range:range(0, 1))
    branch:add(f.stream_number, range:range(1, 4))
    if kind == 8 and #payload == 9 then
      branch:add(f.stream_own, range:range(5, 4))
    end
    return " (stream: " .. STREAM_KINDS[kind] .. ")"
  end
  branch:add(f.call_kind, range:range(0, 1))
  branch:add(f.call_number, range:range(1, 4))
  local text = CALL_KINDS[kind] .. " " .. number_at(payload, 2)
  if kind == 6 and #payload > 5 then
    local reason = payload:byte(6)
    branch:add(f.call_reason, range:range(5, 1))
    text = text .. ": " .. (CALL_REASONS[reason] or "reason " .. reason)
    if #payload > 6 then
      branch:add(f.call_text, range:range(6), payload:sub(7))
    end
  elseif #payload > 5 then
    branch:add(f.call_payload, range:range(5))
  end
  return " (" .. text .. ")"
end

local function show_message(item, pinfo, tree)
  local text = "message of " .. #item.payload .. " bytes"
  if #item.payload == 0 then
    tree:add(triorelay, text):add(f.message_crc, item.crc)
    return text
  end
  local range = ByteArray.new(item.payload, true):tvb("Message"):range()
  local branch = tree:add(triorelay, range, text)
  branch:add(f.message, range)
  if not item.payload:find("[^\t\n\r\32-\126]") then
    branch:add(f.message_text, range, item.payload)
  end
  branch:add(f.message_crc, item.crc)
  local kind = show_kind(item.payload, range, branch)
  branch:append_text(kind)
  if item.payload:find("^%s*[{%[]") then
    -- It names itself in the columns, which are ours.
    local protocol, info = tostring(pinfo.cols.protocol), tostring(pinfo.cols.info)
    Dissector.get("json"):call(range:tvb(), pinfo, branch)
    pinfo.cols.protocol, pinfo.cols.info = protocol, info
  end
  return text .. kind
end

local SHOW = {
  hello = show_hello,
  answer = show_answer,
  event = show_event,
  request = show_request,
  frames = show_frames,
}

local function show_all(items, tvb, pinfo, tree)
  local texts = {}
  pinfo.cols.protocol = "triorelay"
  local branch = tree:add(triorelay, tvb:range(), "triorelay")
  for _, item in ipairs(items) do
    if item.kind == "message" then
      texts[#texts + 1] = show_message(item, pinfo, branch)
    else
      texts[#texts + 1] = SHOW[item.kind](item, tvb, branch)
    end
  end
  pinfo.cols.info = table.concat(texts, ", ")
end

-- What was seen so far, forgotten when a capture is opened.
local connections, routed

function triorelay.init()
  connections = {}
  routed = { blocks = {}, packets = {} }
end

local function dissect_tcp(tvb, pinfo, tree)
  local stream = tcp_stream().value
  connections[stream] = connections[stream] or new_connection()
  local connection = connections[stream]
  local bytes = tvb:raw()
  -- A packet may come in several parts, each with its own bytes.
  local key = pinfo.number .. ":" .. #bytes .. ":" .. bytes:sub(1, 8)
  local parsed = connection.packets[key]
  if parsed == nil then
    local items, left = parse_stream(connection, pinfo.dst_port == triorelay.prefs.port, bytes)
    parsed = { items = items, left = left }
    connection.packets[key] = parsed
  end
  if #parsed.items > 0 then
    show_all(parsed.items, tvb, pinfo, tree)
  end
  if parsed.left > 0 then
    pinfo.desegment_offset = #bytes - parsed.left
    pinfo.desegment_len = DESEGMENT_ONE_MORE_SEGMENT
  end
  return #bytes
end

-- A packet of `monitor --pcapng`: source, destination, data bytes.
local function dissect_routed(tvb, pinfo, tree)
  local bytes = tvb:raw()
  if #bytes < 2 then
    return 0
  end
  local items = routed.packets[pinfo.number]
  if items == nil then
    local source, destination, data = bytes:byte(1), bytes:byte(2), bytes:sub(3)
    items = {
      { kind = "frames", start = 0, length = #bytes, source = source, destination = destination, data = data },
    }
    feed_messages(routed.blocks, source .. ":" .. destination, data, items)
    routed.packets[pinfo.number] = items
  end
  pinfo.cols.src = id_name(bytes:byte(1))
  pinfo.cols.dst = id_name(bytes:byte(2))
  show_all(items, tvb, pinfo, tree)
  return #bytes
end

function triorelay.dissector(tvb, pinfo, tree)
  if tcp_stream() ~= nil then
    return dissect_tcp(tvb, pinfo, tree)
  end
  return dissect_routed(tvb, pinfo, tree)
end

local registered

local function register_port()
  local ports = DissectorTable.get("tcp.port")
  if registered then
    ports:remove(registered, triorelay)
  end
  registered = triorelay.prefs.port
  ports:add(registered, triorelay)
end

triorelay.prefs_changed = register_port
register_port()
DissectorTable.get("wtap_encap"):add(wtap.USER0, triorelay)
