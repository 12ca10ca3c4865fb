// Runs the example against the server at TENANTRY_ADDR.
import { runExample } from "./example.js";
import { overGrpc } from "./index.js";

// For a server on another machine use https.
const baseUrl = `http://${process.env.TENANTRY_ADDR ?? "127.0.0.1:50051"}`;
await runExample(overGrpc({ baseUrl }), console.log);
