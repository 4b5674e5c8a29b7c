// Waiting for conditions instead of for time.

/** How long a condition may take before the test fails, in milliseconds, unless the test says otherwise. */
const PATIENCE = 30_000;

/** How long between two looks at a condition, in milliseconds. */
const INTERVAL = 100;

/** Waits until `condition` returns something truthy and returns that; on giving up, says what was last seen. */
export async function until(what, condition, { patience = PATIENCE, interval = INTERVAL } = {}) {
  const end = Date.now() + patience;
  let last;
  for (;;) {
    last = await condition();
    if (last) return last;
    if (Date.now() > end) throw new Error(`gave up after ${patience} ms waiting until ${what}`);
    await new Promise((done) => setTimeout(done, interval));
  }
}

/** Waits until `probe` returns a value that `accept` agrees with; on giving up, shows the last value. */
export async function untilValue(what, probe, accept, { patience = PATIENCE, interval = INTERVAL } = {}) {
  const end = Date.now() + patience;
  for (;;) {
    const value = await probe();
    if (accept(value)) return value;
    if (Date.now() > end) {
      throw new Error(`gave up after ${patience} ms waiting until ${what}; last seen: ${JSON.stringify(value)}`);
    }
    await new Promise((done) => setTimeout(done, interval));
  }
}
