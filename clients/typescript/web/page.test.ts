// Tests in Chromium, against the server at TENANTRY_ADDR. The page is served at the origin in
// GRPC_WEB_ORIGINS.
import assert from "node:assert/strict";
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { after, before, test } from "node:test";
import { setTimeout } from "node:timers/promises";

import { type Browser, chromium } from "playwright-core";

const origin = new URL(process.env.GRPC_WEB_ORIGINS ?? "");
let pages: ChildProcess;
let browser: Browser;

before(async () => {
  // esbuild ends when its standard input is closed.
  const serve = ["run", "--silent", "web", "--", `--serve=${origin.host}`];
  pages = spawn("npm", serve, { stdio: ["pipe", "ignore", "inherit"] });
  while (!(await fetch(origin).then(({ ok }) => ok, () => false))) {
    assert.equal(pages.exitCode, null, "the page is not served");
    await setTimeout(50);
  }
  browser = await chromium.launch({
    executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium",
    args: ["--no-sandbox", "--disable-gpu", "--disable-background-networking"],
  });
});

after(async () => {
  await browser?.close();
  if (pages.exitCode === null) {
    pages.stdin?.end();
    await once(pages, "exit");
  }
});

/** Returns the text of the page once the tour has ended. */
async function shown(at: URL): Promise<string> {
  at.searchParams.set("server", `http://${process.env.TENANTRY_ADDR}`);
  const page = await browser.newPage();
  await page.goto(at.href);
  const text = page.locator("pre");
  await text.filter({ hasText: /^(done|failed: .*)$/m }).waitFor();
  return text.innerText();
}

test("a page signs in, and its checks are allowed and denied", async () => {
  assert.equal(
    (await shown(new URL(origin))).trim(),
    `invoice:read in eu: allowed (GRANTED)
invoice:read in asia: denied (SCOPE_MISMATCH)
refused (INVALID_FIELDS): email: must be an email address
done`,
  );
});

test("a page of another origin is let nowhere", async () => {
  const other = new URL(origin);
  other.hostname = "localhost";
  assert.match(await shown(other), /^failed: .*fetch/);
});
