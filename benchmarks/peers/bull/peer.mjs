// Bull for Node, answering the commands in benchmarks/peers/__init__.py.
//
// 8 calls of several jobs at a time add fastest, and 64 of one. A backoff of our own doubles, as everybody's does here; what Bull
// calls exponential waits three times as long before the third try.

import { readFileSync } from "node:fs";
import { createInterface } from "node:readline";
import { setTimeout as sleep } from "node:timers/promises";
import Queue from "bull";

const CONCURRENCY = Number(process.env.BENCHMARK_CONCURRENCY ?? 100);
const BACKOFF = 1000 * (process.env.BENCHMARK_BACKOFF ?? 2); // ms
const CALLS = { bulk: 8, single: 64 };
const ORDERS = "order";
const PARTS = "part"; // what an order adds when it fans out
const FAILURES = 2; // of each job in a storm
const OPTIONS = { attempts: 4, backoff: { type: "doubling" }, removeOnComplete: true };
const SETTINGS = { backoffStrategies: { doubling: (attempts) => BACKOFF * 2 ** (attempts - 1) } };
const path = decodeURIComponent(process.argv[2].replace("unix://", ""));

// Seconds on the clock that all processes of a machine share (Linux).
const now = () => Number(process.hrtime.bigint()) / 1e9;

const data = (number, due = 0) => ({
  number,
  text: "two large pizzas for tonight",
  due,
  tenant: "shop",
  key: `chat-${number % 1000}`,
});

const connected = async (name, use) => {
  const queue = new Queue(name, { redis: { path }, settings: SETTINGS });
  await queue.isReady();
  const result = await use(queue);
  await queue.close();
  return result;
};

const send = (queue, batch) =>
  batch.length === 1
    ? queue.add(batch[0], OPTIONS)
    : queue.addBulk(batch.map((job) => ({ data: job, opts: OPTIONS })));

// Resolves when so many jobs of these queues are settled, each handed to its queue's handler.
const settled = (jobs, handlers) =>
  new Promise((resolve, reject) => {
    let left = jobs;
    for (const [queue, handler] of handlers) {
      queue.on("completed", () => --left || resolve()); // said once a job is settled
      queue.process(CONCURRENCY, async (job) => handler(job.data)).catch(reject);
    }
  });

const settle = (jobs, handler) =>
  connected(ORDERS, async (orders) => {
    const started = now();
    await settled(jobs, [[orders, handler]]);
    return now() - started;
  });

const commands = {
  add: (jobs, bulk) =>
    connected(ORDERS, async (orders) => {
      let next = 0;
      const caller = async () => {
        while (next < jobs) {
          const first = next;
          next += bulk;
          await send(orders, Array.from({ length: bulk }, (_, number) => data(first + number)));
        }
      };
      const started = now();
      await Promise.all(Array.from({ length: bulk === 1 ? CALLS.single : CALLS.bulk }, caller));
      return now() - started;
    }),
  work: (jobs) => settle(jobs, () => {}),
  storm: (jobs) => {
    const tries = new Map();
    return settle(jobs, ({ number }) => {
      tries.set(number, (tries.get(number) ?? 0) + 1);
      if (tries.get(number) <= FAILURES) throw new Error("it storms");
    });
  },
  fan_out: (jobs, children) =>
    connected(ORDERS, (orders) =>
      connected(PARTS, async (parts) => {
        const part = (number) => (_, index) => data(number * children + index);
        const hand = ({ number }) => send(parts, Array.from({ length: children }, part(number)));
        const started = now();
        await settled(jobs * (1 + children), [[orders, hand], [parts, () => {}]]);
        return now() - started;
      }),
    ),
  latency: async (jobs) => {
    const latencies = [];
    await settle(jobs, (job) => latencies.push((now() - job.due) * 1000));
    latencies.sort((one, other) => one - other);
    return [0.5, 0.99].map((share) => latencies[Math.floor(latencies.length * share)]);
  },
  // In ticks of a millisecond; a call that takes long holds up no other.
  produce: (jobs, rate) =>
    connected(ORDERS, async (orders) => {
      const started = now();
      const adding = [];
      for (let sent = 0; sent < jobs; await sleep(1)) {
        const until = Math.min(jobs, Math.floor((now() - started) * rate));
        if (until === sent) continue;
        const due = (_, number) => data(sent + number, started + (sent + number) / rate);
        adding.push(send(orders, Array.from({ length: until - sent }, due)));
        sent = until;
      }
      await Promise.all(adding);
      return now() - started;
    }),
};

const installed = (name) => JSON.parse(readFileSync(`node_modules/${name}/package.json`)).version;

console.log(JSON.stringify({ node: process.versions.node, bull: installed("bull"), ioredis: installed("ioredis") }));
for await (const line of createInterface({ input: process.stdin })) {
  const [command, ...numbers] = line.split(" ");
  console.log(JSON.stringify(await commands[command](...numbers.map(Number))));
}
