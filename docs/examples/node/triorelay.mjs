// The wire protocol of triorelay for Node.js, without dependencies. Copy this file into your program.
//
//     const client = await connect({ path: "server_socket" }, "A");          // or { host, port }
//     client.on("message", (source, payload) => console.log(source, payload.toString()));
//     client.on("event", ({ name, id }) => console.log(name, id));
//     await client.send("B", "hello");
//     await client.close();

import { EventEmitter, once } from "node:events";
import { createConnection } from "node:net";

export const ACK = 1, EVENTS = 2, TOKEN = 4, SHARE = 8, LOSSY = 16;
export const CALL = 4, REPLY = 5, FAIL = 6, CANCEL = 7; // the first byte of a call's message

export const EVENT_NAMES = [
  "", "JOINED", "LEFT", "NO_ROUTE", "DROPPED", "DRAINING", "PONG", "SYNCED", "FLUSHED", "CLOSING",
];

export const REFUSALS = [
  "welcome", "the id is taken", "not allowed to hold this id", "bad hello", "the relay is full",
  "the relay is shutting down", "authentication required or failed", "unavailable now, try again",
];

export const MESSAGE_LIMIT = 1 << 20; // bytes of payload, as in the library

// -- writing

export function hello(id, options = 0, token = Buffer.alloc(0)) {
  if (token.length > 255) throw new RangeError("a token has at most 255 bytes");
  if (token.length === 0) return Buffer.from([id, 0x80 | (options & ~TOKEN)]);
  return Buffer.concat([Buffer.from([id, 0x80 | options | TOKEN, token.length]), token]);
}

export function frames(id, data) {
  const out = Buffer.alloc(2 * data.length, id);
  for (let i = 0; i < data.length; i++) out[2 * i + 1] = data[i];
  return out;
}

export const request = (code, argument) => Buffer.from([0, code, 0, argument]);

export function message(payload) {
  const plain = Buffer.alloc(payload.length + 4);
  plain.set(payload);
  plain.writeUInt32BE(crc32(payload), payload.length);
  return Buffer.concat([cobsEncode(plain), Buffer.of(0)]);
}

// The payload of a call's message. `payload` is that of a CALL or REPLY, or the UTF-8 text of a FAIL.
export function callMessage({ kind, number, reason = 0, payload = Buffer.alloc(0) }) {
  const head = Buffer.alloc(kind === FAIL ? 6 : 5, reason);
  head[0] = kind;
  head.writeUInt32BE(number, 1);
  return Buffer.concat([head, payload]);
}

// CRC-32 as in zlib. Node.js has zlib.crc32() from version 22.2 on.
const CRC_TABLE = Uint32Array.from({ length: 256 }, (_, crc) => {
  for (let bit = 0; bit < 8; bit++) crc = crc & 1 ? (crc >>> 1) ^ 0xedb88320 : crc >>> 1;
  return crc;
});

export function crc32(data) {
  let crc = 0xffffffff;
  for (const byte of data) crc = (crc >>> 8) ^ CRC_TABLE[(crc ^ byte) & 0xff];
  return ~crc >>> 0;
}

export function cobsEncode(plain) {
  const out = Buffer.alloc(plain.length + Math.floor(plain.length / 254) + 1);
  let code = 0, at = 1;
  for (const byte of plain) {
    if (at - code === 255) { // the block is full, and more follows
      out[code] = 255;
      code = at++;
    }
    if (byte !== 0) out[at++] = byte;
    else {
      out[code] = at - code;
      code = at++;
    }
  }
  out[code] = at - code;
  return out.subarray(0, at);
}

// -- reading

export function cobsDecode(block) {
  const out = Buffer.alloc(block.length);
  let to = 0;
  for (let from = 0; from < block.length;) {
    const length = block[from++];
    if (length === 0 || length - 1 > block.length - from) return null; // cut
    to += block.copy(out, to, from, from + length - 1);
    from += length - 1;
    if (length < 255 && from < block.length) out[to++] = 0;
  }
  return out.subarray(0, to);
}

// Returns { kind, number, reason, payload }, or null if the message is not one of a call.
export function readCall(message) {
  const kind = message[0];
  if (message.length < (kind === FAIL ? 6 : 5) || kind < CALL || kind > CANCEL) return null;
  if (kind === CANCEL && message.length > 5) return null;
  const reason = kind === FAIL ? message[5] : 0;
  return { kind, number: message.readUInt32BE(1), reason, payload: message.subarray(kind === FAIL ? 6 : 5) };
}

// Splits what arrives into { source, data } and { event, argument }. The answer to a hello is a frame too: read it first.
export class FrameReader {
  #half = Buffer.alloc(0);
  #code = -1;

  feed(chunk) {
    if (this.#half.length > 0) chunk = Buffer.concat([this.#half, chunk]);
    const items = [];
    let at = 0;
    while (at + 1 < chunk.length) {
      const source = chunk[at], from = at;
      while (at + 1 < chunk.length && chunk[at] === source) at += 2;
      const data = Buffer.alloc((at - from) / 2);
      for (let i = 0; i < data.length; i++) data[i] = chunk[from + 2 * i + 1];
      if (source === 0) this.#takeEvents(data, items);
      else if (this.#code >= 0) throw new Error("a frame came between the two frames of an event");
      else items.push({ source, data });
    }
    this.#half = chunk.subarray(at);
    return items;
  }

  #takeEvents(data, items) {
    for (const byte of data) {
      if (this.#code < 0) this.#code = byte;
      else {
        items.push({ event: this.#code, argument: byte });
        this.#code = -1;
      }
    }
  }
}

// Puts the messages of one source together. A block that is cut, corrupt or too long is discarded.
export class MessageReader {
  #pieces = [];
  #size = 0;
  #limit;
  discarded = 0;

  constructor(limit = MESSAGE_LIMIT) {
    this.#limit = limit + 4 + Math.floor((limit + 4) / 254) + 1;
  }

  feed(data) {
    const payloads = [];
    let end;
    while ((end = data.indexOf(0)) >= 0) {
      this.#extend(data.subarray(0, end));
      data = data.subarray(end + 1);
      if (this.#size > 0) this.#finish(payloads);
    }
    this.#extend(data);
    return payloads;
  }

  #extend(piece) {
    this.#size += piece.length;
    if (this.#size > this.#limit) this.#pieces = []; // too long: only its size is kept
    else if (piece.length > 0) this.#pieces.push(Buffer.from(piece));
  }

  #finish(payloads) {
    const plain = this.#size > this.#limit ? null : cobsDecode(Buffer.concat(this.#pieces));
    this.#pieces = [];
    this.#size = 0;
    const size = plain === null ? -1 : plain.length - 4;
    if (size >= 0 && plain.readUInt32BE(size) === crc32(plain.subarray(0, size))) payloads.push(plain.subarray(0, size));
    else this.discarded++;
  }
}

// -- a client

export class Client extends EventEmitter {
  #socket;
  #frames = new FrameReader();
  #messages = new Map(); // source -> MessageReader
  #begun = new Set(); // the peers to which a message was sent
  #lost; // a promise that is rejected when the connection closes

  constructor(socket) {
    super();
    this.#socket = socket;
    socket.on("data", (chunk) => this.#receive(chunk));
    socket.on("error", (error) => this.emit("error", error));
    this.#lost = once(socket, "close").then(() => {
      throw new Error("the relay has closed the connection");
    });
    this.#lost.catch(() => this.emit("close"));
  }

  // Sends a message; resolves when there is room for the next one. A paused receiver makes it wait.
  async send(destination, payload) {
    const id = Buffer.from(destination, "latin1")[0];
    const data = message(Buffer.from(payload));
    // The first data byte 0 ends what an earlier client of this id left unfinished.
    const begin = this.#begun.has(id) ? Buffer.alloc(0) : Buffer.of(0);
    this.#begun.add(id);
    if (!this.#socket.write(frames(id, Buffer.concat([begin, data])))) {
      await Promise.race([once(this.#socket, "drain"), this.#lost]);
    }
  }

  // Resolves when the relay has written or dropped all that was sent, and has reported what it dropped.
  async flush() {
    this.#socket.write(request(EVENT_NAMES.indexOf("FLUSHED"), 1));
    await Promise.race([once(this, "flushed"), this.#lost]);
  }

  async close() {
    await this.flush();
    this.#socket.end();
    await once(this, "close");
  }

  #receive(chunk) {
    for (const item of this.#frames.feed(chunk)) {
      if ("source" in item) this.#takeData(item.source, item.data);
      else this.#takeEvent(EVENT_NAMES[item.event], item.argument);
    }
  }

  #takeData(source, data) {
    if (!this.#messages.has(source)) this.#messages.set(source, new MessageReader());
    for (const payload of this.#messages.get(source).feed(data)) {
      this.emit("message", String.fromCharCode(source), payload);
    }
  }

  #takeEvent(name, argument) {
    if (name === undefined) return; // a code that this program does not know
    if (name === "LEFT") this.#messages.delete(argument);
    if (name === "FLUSHED") this.emit("flushed");
    this.emit("event", { name, id: String.fromCharCode(argument), argument });
  }
}

// Connects, says hello and waits for the answer. `address` is what net.createConnection() takes.
export async function connect(address, id, token = "") {
  const socket = createConnection(address);
  await once(socket, "connect");
  socket.write(hello(Buffer.from(id, "latin1")[0], EVENTS, Buffer.from(token)));
  let answer = null;
  while (answer === null) {
    await once(socket, "readable");
    answer = socket.read(2);
    if (answer === null && socket.readableEnded) throw new Error("the relay does not answer");
  }
  if (answer[1] !== 0) throw new Error(`the relay refused: ${REFUSALS[answer[1]] ?? `code ${answer[1]}`}`);
  return new Client(socket);
}
