// The tour from a browser, of the server that ?server= names. What it prints stands on the page.
import { ConnectError } from "@connectrpc/connect";

import { tour } from "../src/tour.js";
import { overGrpcWeb } from "../src/web.js";

// Beyond this machine: https.
const baseUrl = new URLSearchParams(location.search).get("server") ?? "http://127.0.0.1:50051";
const print = (line: string) => document.querySelector("pre")?.append(`${line}\n`);
try {
  await tour(overGrpcWeb({ baseUrl }), print);
  print("done");
} catch (error) {
  print(`failed: ${ConnectError.from(error).message}`);
}
