// Runs the tour in a browser, against the server in ?server=. The output appears on the page.
import { ConnectError } from "@connectrpc/connect";

import { tour } from "../src/tour.js";
import { overGrpcWeb } from "../src/web.js";

// For a server on another machine use https.
const baseUrl = new URLSearchParams(location.search).get("server") ?? "http://127.0.0.1:50051";
const print = (line: string) => document.querySelector("pre")?.append(`${line}\n`);
try {
  await tour(overGrpcWeb({ baseUrl }), print);
  print("done");
} catch (error) {
  print(`failed: ${ConnectError.from(error).message}`);
}
