// docs/examples/node/triorelay.mjs writes and reads what docs/reference/vectors.json says.

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";
import * as triorelay from "../../docs/examples/node/triorelay.mjs";

const vectors = JSON.parse(readFileSync(new URL("../../docs/reference/vectors.json", import.meta.url)));
const bytes = (hex) => Buffer.from(hex, "hex");

test("hello", () => {
  for (const { id, options, token, bytes: expected } of vectors.hello) {
    assert.equal(triorelay.hello(id, options, bytes(token)).toString("hex"), expected);
  }
});

test("frames", () => {
  for (const { id, data, bytes: expected } of vectors.frames) {
    assert.equal(triorelay.frames(id, bytes(data)).toString("hex"), expected);
  }
});

test("requests", () => {
  for (const { code, argument, bytes: expected } of vectors.requests) {
    assert.equal(triorelay.request(code, argument).toString("hex"), expected);
  }
});

// Whole, and a byte at a time, whose data is joined again for each run of one source.
for (const size of [Infinity, 1]) {
  test(`received, ${size} bytes at a time`, () => {
    for (const { bytes: hex, items } of vectors.received) {
      const read = () => join(inPieces(new triorelay.FrameReader(), bytes(hex), size));
      if (items === null) assert.throws(read);
      else assert.deepEqual(read(), items);
    }
  });

  test(`reading messages, ${size} bytes at a time`, () => {
    for (const { data, payloads, discarded } of vectors.message_reading) {
      const reader = new triorelay.MessageReader();
      const found = inPieces(reader, bytes(data), size).map((payload) => payload.toString("hex"));
      assert.deepEqual(found, payloads);
      assert.equal(reader.discarded, discarded);
    }
  });
}

test("messages", () => {
  for (const { payload, data } of vectors.messages) {
    assert.equal(triorelay.message(bytes(payload)).toString("hex"), data);
    assert.deepEqual(new triorelay.MessageReader().feed(bytes(data)), [bytes(payload)]);
  }
});

test("calls", () => {
  for (const { message: hex, payload, ...call } of vectors.calls) {
    assert.equal(triorelay.callMessage({ ...call, payload: bytes(payload) }).toString("hex"), hex);
    assert.deepEqual(triorelay.readCall(bytes(hex)), { ...call, payload: bytes(payload) });
  }
  for (const hex of vectors.no_calls) assert.equal(triorelay.readCall(bytes(hex)), null);
});

test("a message over the limit is discarded whole", () => {
  const reader = new triorelay.MessageReader(8);
  const data = ["fits", "x".repeat(1000), "fits too"].map((text) => triorelay.message(Buffer.from(text)));
  const found = reader.feed(Buffer.concat(data)).map(String);
  assert.deepEqual([found, reader.discarded], [["fits", "fits too"], 1]);
});

function inPieces(reader, data, size) {
  const found = [];
  for (let at = 0; at < data.length; at += size) found.push(...reader.feed(data.subarray(at, at + size)));
  return found;
}

function join(items) {
  const joined = [];
  for (const { source, data, ...event } of items) {
    const last = joined.at(-1);
    if (source === undefined) joined.push(event);
    else if (last !== undefined && last.source === source) last.data += data.toString("hex");
    else joined.push({ source, data: data.toString("hex") });
  }
  return joined;
}
