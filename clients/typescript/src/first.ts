// The tour of the server that TENANTRY_ADDR names.
import { overGrpc } from "./index.js";
import { tour } from "./tour.js";

// Beyond this machine: https.
const baseUrl = `http://${process.env.TENANTRY_ADDR ?? "127.0.0.1:50051"}`;
await tour(overGrpc({ baseUrl }), console.log);
