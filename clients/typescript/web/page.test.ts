// Tests in Chromium, against the server at TENANTRY_ADDR. The page is served at the origin in
// GRPC_WEB_ORIGINS.
import assert from "node:assert/strict";
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { after, before, test } from "node:test";
import { setTimeout } from "node:timers/promises";

import { type Browser, chromium } from "playwright-core";

const origin = new URL(process.env.GRPC_WEB_ORIGINS ?? "");
let webServer: ChildProcess;
let browser: Browser;

before(async () => {
  // esbuild ends when its standard input is closed.
  const npmArguments = ["run", "--silent", "web", "--", `--serve=${origin.host}`];
  webServer = spawn("npm", npmArguments, { stdio: ["pipe", "ignore", "inherit"] });
  while (!(await fetch(origin).then(({ ok }) => ok, () => false))) {
    assert.equal(webServer.exitCode, null, "the page is not served");
    await setTimeout(50);
  }
  browser = await chromium.launch({
    executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium",
    args: ["--no-sandbox", "--disable-gpu", "--disable-background-networking"],
  });
});

after(async () => {
  await browser?.close();
  if (webServer.exitCode === null) {
    webServer.stdin?.end();
    await once(webServer, "exit");
  }
});

/** Opens the page at this URL and returns its text when the example has ended. */
async function openPage(url: URL): Promise<string> {
  url.searchParams.set("server", `http://${process.env.TENANTRY_ADDR}`);
  const page = await browser.newPage();
  await page.goto(url.href);
  const text = page.locator("pre");
  await text.filter({ hasText: /^(done|failed: .*)$/m }).waitFor();
  return text.innerText();
}

test("a page signs in, and its checks are allowed and denied", async () => {
  assert.equal(
    (await openPage(new URL(origin))).trim(),
    `invoice:read in eu: allowed (GRANTED)
invoice:read in asia: denied (SCOPE_MISMATCH)
refused (INVALID_FIELDS): email: must be an email address
done`,
  );
});

test("a page of another origin gets no response", async () => {
  const otherOrigin = new URL(origin);
  otherOrigin.hostname = "localhost";
  assert.match(await openPage(otherOrigin), /^failed: .*fetch/);
});
