// A client of a Snakepit broker on a network, for Node and other languages as a template.
//
//     npm install
//     node client.mjs gpu-1.internal:7443 primes count '{"below": 100000}'
//     node client.mjs --stream gpu-1.internal:7443 primes primes '{"limit": 10}'
//
// SNAKEPIT_TOKEN has the API key; SNAKEPIT_TLS_CA, SNAKEPIT_TLS_CERT and SNAKEPIT_TLS_KEY have PEM files;
// SNAKEPIT_PROTO is the folder `proto` of the source archive.

import { readFileSync } from "node:fs";
import grpc from "@grpc/grpc-js";
import loader from "@grpc/proto-loader";

const { SNAKEPIT_TOKEN, SNAKEPIT_TLS_CA, SNAKEPIT_TLS_CERT, SNAKEPIT_TLS_KEY, SNAKEPIT_PROTO = "proto" } = process.env;
const words = process.argv.slice(2);
const streams = words[0] === "--stream";
const [address, pool, command, given = "{}"] = words.slice(streams ? 1 : 0);

const file = (path) => (path ? readFileSync(path) : null);
// With `oneofs`, the field `value` of a reply has the name of what it holds.
const options = { includeDirs: [SNAKEPIT_PROTO], defaults: true, oneofs: true };
const definition = loader.loadSync("snakepit/pools/wire/broker.proto", options);
const { Broker } = grpc.loadPackageDefinition(definition).snakepit.broker.v1;
const credentials = grpc.credentials.createSsl(file(SNAKEPIT_TLS_CA), file(SNAKEPIT_TLS_KEY), file(SNAKEPIT_TLS_CERT));
const broker = new Broker(address, credentials);

const metadata = new grpc.Metadata();
if (SNAKEPIT_TOKEN) metadata.set("authorization", `Bearer ${SNAKEPIT_TOKEN}`);

const request = { pool, command, arguments: given };
// When the deadline passes, the broker cancels the call. So does the end of this process.
const until = { deadline: Date.now() + 30_000 };

if (streams) {
  const replies = broker.ExecuteStream(request, metadata, until);
  // The last reply has the timing alone.
  replies.on("data", (reply) => reply.value && console.log(shown(reply)));
  replies.on("error", failed);
  replies.on("end", () => broker.close());
} else {
  broker.Execute(request, metadata, until, (error, reply) => {
    if (error) failed(error);
    else console.log(shown(reply));
    broker.close();
  });
}

// A result that consists of bytes is not JSON.
function shown(reply) {
  return reply.value === "raw" ? reply.raw.toString("base64") : reply.json;
}

function failed(error) {
  const [code = error.code] = error.metadata.get("snakepit-code");
  const [outcome = "unknown"] = error.metadata.get("snakepit-outcome");
  console.error(`${code} (${outcome}): ${error.details}`);
  process.exitCode = 1;
  broker.close();
}
