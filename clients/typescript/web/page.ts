// Runs the example in a browser, against the server that the URL parameter `server` contains. The
// page shows the output.
import { ConnectError } from "@connectrpc/connect";

import { runExample } from "../src/example.js";
import { overGrpcWeb } from "../src/web.js";

// For a server on another machine use https.
const baseUrl = new URLSearchParams(location.search).get("server") ?? "http://127.0.0.1:50051";
const print = (line: string) => document.querySelector("pre")?.append(`${line}\n`);
try {
  await runExample(overGrpcWeb({ baseUrl }), print);
  print("done");
} catch (error) {
  print(`failed: ${ConnectError.from(error).message}`);
}
