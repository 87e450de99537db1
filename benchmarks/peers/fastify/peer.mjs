// Fastify in front of BullMQ: takes jobs in over HTTP, as benchmarks/http.py posts them. Prints its versions and its
// port, and serves until its standard input ends.
//
// One queue.add a request is what its documentation shows; a schema lets Fastify compile how it checks and answers;
// with enableAutoPipelining, commands of one tick go out together, which takes less of Node's time.

import { readFileSync } from "node:fs";
import { Queue } from "bullmq";
import Fastify from "fastify";
import { Redis } from "ioredis";

const OPTIONS = { attempts: 4, backoff: { type: "exponential", delay: 2000 } };
const path = decodeURIComponent(process.argv[2].replace("unix://", ""));
const text = { type: "string", maxLength: 200 };
const schema = {
  body: {
    type: "object",
    required: ["kind", "payload"],
    properties: { kind: text, tenant: text, key: text, payload: { type: "object" } },
  },
  response: { 202: { type: "object", properties: { jobId: { type: "string" } } } },
};

const queue = new Queue("audio", { connection: new Redis({ path, maxRetriesPerRequest: null, enableAutoPipelining: true }) });
await queue.waitUntilReady();
const app = Fastify();
app.post("/queue/audio/jobs", { schema }, async (request, reply) => {
  const { kind, ...data } = request.body;
  const job = await queue.add(kind, data, OPTIONS);
  return reply.code(202).send({ jobId: job.id });
});
await app.listen({ host: "127.0.0.1", port: 0 });

const installed = (name) => JSON.parse(readFileSync(`node_modules/${name}/package.json`)).version;
const versions = Object.fromEntries(["fastify", "bullmq", "ioredis"].map((name) => [name, installed(name)]));
const port = String(app.server.address().port);
console.log(JSON.stringify({ node: process.versions.node, ...versions, port }));
process.stdin.resume().on("end", () => process.exit());
