// Sends each line of standard input to a peer as one message, and prints messages and events.
//
//     node client.mjs server_socket A B               over a Unix socket
//     node client.mjs relay.example 9734 A B          over TCP

import { createInterface } from "node:readline";
import { connect } from "./triorelay.mjs";

const words = process.argv.slice(2);
const [id, peer] = words.slice(-2);
const address = words.length === 3 ? { path: words[0] } : { host: words[0], port: Number(words[1]) };

try {
  const client = await connect(address, id);
  client.on("message", (source, payload) => console.log(`${source}: ${payload}`));
  client.on("event", ({ name, id }) => {
    if (["JOINED", "LEFT", "NO_ROUTE", "DROPPED"].includes(name)) console.log(`${name} ${id}`);
  });
  const lost = () => {
    console.error("client: the relay has closed the connection");
    process.exit(1);
  };
  client.on("close", lost);
  for await (const line of createInterface({ input: process.stdin })) await client.send(peer, line);
  client.off("close", lost);
  await client.close();
} catch (error) {
  console.error(`client: ${error.message}`);
  process.exitCode = 1;
}
