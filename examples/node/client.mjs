// A client of a Snakepit broker on a network, for Node and other languages as a template.
//
//     npm install @grpc/grpc-js @grpc/proto-loader
//     node client.mjs gpu-1.internal:7443 primes count '{"below": 100000}'
//
// SNAKEPIT_TOKEN has the API key; SNAKEPIT_TLS_CA, SNAKEPIT_TLS_CERT and SNAKEPIT_TLS_KEY have PEM files;
// SNAKEPIT_PROTO is the folder `proto` of the source archive.

import { readFileSync } from "node:fs";
import grpc from "@grpc/grpc-js";
import loader from "@grpc/proto-loader";

const { SNAKEPIT_TOKEN, SNAKEPIT_TLS_CA, SNAKEPIT_TLS_CERT, SNAKEPIT_TLS_KEY, SNAKEPIT_PROTO = "proto" } = process.env;
const [address, pool, command, given = "{}"] = process.argv.slice(2);

const file = (path) => (path ? readFileSync(path) : null);
const definition = loader.loadSync("snakepit/pools/wire/broker.proto", { includeDirs: [SNAKEPIT_PROTO], defaults: true });
const { Broker } = grpc.loadPackageDefinition(definition).snakepit.broker.v1;
const credentials = grpc.credentials.createSsl(file(SNAKEPIT_TLS_CA), file(SNAKEPIT_TLS_KEY), file(SNAKEPIT_TLS_CERT));
const broker = new Broker(address, credentials);

const metadata = new grpc.Metadata();
if (SNAKEPIT_TOKEN) metadata.set("authorization", `Bearer ${SNAKEPIT_TOKEN}`);

// When the deadline passes, the broker cancels the call.
const options = { deadline: Date.now() + 30_000 };
broker.Execute({ pool, command, arguments: given }, metadata, options, (error, reply) => {
  if (error) {
    const [code = error.code] = error.metadata.get("snakepit-code");
    const [outcome = "unknown"] = error.metadata.get("snakepit-outcome");
    console.error(`${code} (${outcome}): ${error.details}`);
    process.exitCode = 1;
  } else {
    console.log(reply.json);
  }
  broker.close();
});
