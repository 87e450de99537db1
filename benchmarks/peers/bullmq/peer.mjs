// BullMQ for Node, answering the commands in benchmarks/peers/__init__.py.
//
// ioredis is the client its documentation uses; node-redis was no faster here, and enableAutoPipelining no help.
// 8 calls of several jobs at a time add fastest, and 128 of one. Completed jobs are removed by the worker's own option
// rather than each job's: that keeps a job's options under 64 bytes, which is what lets the server store them compactly.

import { readFileSync } from "node:fs";
import { createInterface } from "node:readline";
import { setTimeout as sleep } from "node:timers/promises";
import { Queue, Worker } from "bullmq";
import { Redis } from "ioredis";

const CONCURRENCY = Number(process.env.BENCHMARK_CONCURRENCY ?? 100);
const CALLS = { bulk: 8, single: 128 };
const QUEUE = "order";
const PARTS = "part"; // what an order adds when it fans out
const FAILURES = 2; // of each job in a storm
const OPTIONS = { attempts: 4, backoff: { type: "exponential", delay: 1000 * (process.env.BENCHMARK_BACKOFF ?? 2) } };
const path = decodeURIComponent(process.argv[2].replace("unix://", ""));

// Seconds on the clock that all processes of a machine share (Linux).
const now = () => Number(process.hrtime.bigint()) / 1e9;

// Only what a bare job carries where `bare` is set: neither tenant nor ordering key.
const data = (number, due = 0, bare = false) => {
  const payload = { number, text: "two large pizzas for tonight", due };
  return bare ? payload : { ...payload, tenant: "shop", key: `chat-${number % 1000}` };
};

const connected = async (use) => {
  const connection = new Redis({ path, maxRetriesPerRequest: null });
  const queue = new Queue(QUEUE, { connection });
  await queue.waitUntilReady();
  const result = await use(queue, connection);
  await queue.close();
  connection.disconnect();
  return result;
};

const send = (queue, batch) =>
  batch.length === 1
    ? queue.add(queue.name, batch[0], OPTIONS)
    : queue.addBulk(batch.map((job) => ({ name: queue.name, data: job, opts: OPTIONS })));

const fill = (jobs, bulk, bare) =>
  connected(async (queue) => {
    let next = 0;
    const caller = async () => {
      while (next < jobs) {
        const first = next;
        next += bulk;
        await send(queue, Array.from({ length: bulk }, (_, number) => data(first + number, 0, bare)));
      }
    };
    const started = now();
    await Promise.all(Array.from({ length: bulk === 1 ? CALLS.single : CALLS.bulk }, caller));
    return now() - started;
  });

// Each queue's handler, by its name, until so many jobs are settled.
const settle = (jobs, handlers) =>
  connected(async (_, connection) => {
    let left = jobs;
    const started = now();
    const options = { connection, concurrency: CONCURRENCY, removeOnComplete: { count: 0 } };
    const workers = Object.entries(handlers).map(
      ([queue, handler]) => new Worker(queue, async (job) => handler(job.data), options),
    );
    // Said once a job is settled.
    await new Promise((resolve) => {
      for (const worker of workers) worker.on("completed", () => --left || resolve());
    });
    const took = now() - started;
    await Promise.all(workers.map((worker) => worker.close()));
    return took;
  });

const commands = {
  add: (jobs, bulk) => fill(jobs, bulk, false),
  add_bare: (jobs, bulk) => fill(jobs, bulk, true),
  work: (jobs) => settle(jobs, { [QUEUE]: () => {} }),
  storm: (jobs) => {
    const tries = new Map();
    const failing = ({ number }) => {
      tries.set(number, (tries.get(number) ?? 0) + 1);
      if (tries.get(number) <= FAILURES) throw new Error("it storms");
    };
    return settle(jobs, { [QUEUE]: failing });
  },
  fan_out: (jobs, children) =>
    connected(async (_, connection) => {
      const parts = new Queue(PARTS, { connection });
      const part = (number) => (_, index) => data(number * children + index);
      const hand = ({ number }) => send(parts, Array.from({ length: children }, part(number)));
      const took = await settle(jobs * (1 + children), { [QUEUE]: hand, [PARTS]: () => {} });
      await parts.close();
      return took;
    }),
  latency: async (jobs) => {
    const latencies = [];
    await settle(jobs, { [QUEUE]: (job) => latencies.push((now() - job.due) * 1000) });
    latencies.sort((one, other) => one - other);
    return [0.5, 0.99].map((share) => latencies[Math.floor(latencies.length * share)]);
  },
  // In ticks of a millisecond; a call that takes long holds up no other.
  produce: (jobs, rate) =>
    connected(async (queue) => {
      const started = now();
      const adding = [];
      for (let sent = 0; sent < jobs; await sleep(1)) {
        const until = Math.min(jobs, Math.floor((now() - started) * rate));
        if (until === sent) continue;
        const due = (_, number) => data(sent + number, started + (sent + number) / rate);
        adding.push(send(queue, Array.from({ length: until - sent }, due)));
        sent = until;
      }
      await Promise.all(adding);
      return now() - started;
    }),
};

const installed = (name) => JSON.parse(readFileSync(`node_modules/${name}/package.json`)).version;

console.log(JSON.stringify({ node: process.versions.node, bullmq: installed("bullmq"), ioredis: installed("ioredis") }));
for await (const line of createInterface({ input: process.stdin })) {
  const [command, ...numbers] = line.split(" ");
  console.log(JSON.stringify(await commands[command](...numbers.map(Number))));
}
