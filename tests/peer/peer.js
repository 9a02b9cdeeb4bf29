// A queue of BullMQ behind fastify, as a peer of the gateway. Usage: node peer.js REDIS_URL PREFIX
import { Queue } from "bullmq";
import fastify from "fastify";
import { Redis } from "ioredis";

const [url, prefix] = process.argv.slice(2);
const queue = new Queue("echo", { connection: new Redis(url, { maxRetriesPerRequest: null }), prefix });
const server = fastify();
server.addContentTypeParser("application/octet-stream", { parseAs: "buffer" }, (request, body, done) => done(null, body));
server.post("/v1/pools/echo/jobs", async (request, reply) => {
    const job = await queue.add("echo", { body: request.body.toString("latin1") });
    reply.code(202);
    return { id: job.id };
});
console.log(`peer ${await server.listen({ host: "127.0.0.1", port: 0 })}`);
