// Runs the tour against the server at TENANTRY_ADDR.
import { overGrpc } from "./index.js";
import { tour } from "./tour.js";

// For a server on another machine use https.
const baseUrl = `http://${process.env.TENANTRY_ADDR ?? "127.0.0.1:50051"}`;
await tour(overGrpc({ baseUrl }), console.log);
