// LaunchDarkly's own SDK for Node on the client side, against a sandbox: it sees the flag flip, by
// stream, with the context in the path and as the body of a REPORT, and hears why if it asks.
//
//     node sdk.mjs SANDBOX-URL      (with launchdarkly-node-client-sdk under NODE_PATH)

import assert from 'node:assert/strict';
import { mkdtempSync, rmSync } from 'node:fs';
import { createRequire } from 'node:module';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

const { basicLogger, initialize } = createRequire(import.meta.url)('launchdarkly-node-client-sdk');

// What the sandbox's front page names.
const WRITER_TOKEN = 'api-00000000-0000-4000-8000-000000000001';
const CLIENT_SIDE_ID = '5a0000000000000000000001';
const FLAG = 'vip-banner';

const IN = { value: true, reason: { kind: 'RULE_MATCH', ruleIndex: 0, ruleId: 'members' } };
const OUT = { value: false, reason: { kind: 'FALLTHROUGH' } };

// Generous: the machine may be busy with something else.
const DEADLINE_MS = 60_000;

const sandbox = process.argv[2];

async function move(action, key) {
  const members = [{ integration_distinct_id: key }];
  const response = await fetch(`${sandbox}/api/v2/segment-targets/zeotap`, {
    method: 'POST',
    headers: { authorization: WRITER_TOKEN },
    body: JSON.stringify({
      action,
      parameters: {
        integration_project_id: CLIENT_SIDE_ID,
        integration_cohort_id: 'vip',
        integration_cohort_name: 'VIP',
        members,
      },
    }),
  });
  assert.equal(response.status, 204);
}

async function watch(options, storage) {
  const key = `node, ${JSON.stringify(options)}`;
  const client = initialize(CLIENT_SIDE_ID, { kind: 'user', key }, {
    baseUrl: sandbox,
    streamUrl: sandbox,
    eventsUrl: sandbox,
    localStoragePath: storage,
    logger: basicLogger({ level: 'error' }),
    ...options,
  });
  const check = ({ value, reason }) => {
    const detail = client.variationDetail(FLAG);
    assert.equal(detail.value, value, key);
    assert.deepEqual(detail.reason, options.evaluationReasons ? reason : null, key);
  };
  await client.waitForInitialization(DEADLINE_MS / 1_000);
  check(OUT);
  let hear;
  client.on(`change:${FLAG}`, (value) => hear(value));
  for (const [action, now] of [['add_members', IN], ['remove_members', OUT]]) {
    const heard = new Promise((resolve) => { hear = resolve; });
    await move(action, key);
    assert.equal(await heard, now.value, key);
    check(now);
  }
  await client.flush();
  await client.close();
}

async function used() {
  const response = await fetch(`${sandbox}/_sandbox/calls?after=0&limit=1000`);
  const { calls } = await response.json();
  return new Set(calls.map(({ method, path, status }) => `${method} ${path} ${status}`));
}

const deadline = setTimeout(() => assert.fail(`not within ${DEADLINE_MS} ms`), DEADLINE_MS);
const storage = mkdtempSync(join(tmpdir(), 'sdk-'));
try {
  for (const useReport of [false, true]) {
    for (const evaluationReasons of [false, true]) {
      await watch({ useReport, evaluationReasons }, storage);
    }
  }
  const seen = await used();
  for (const call of [
    'GET /sdk/evalx/{environment}/contexts/{context} 200',
    'GET /eval/{environment}/{context} 200',
    `REPORT /sdk/evalx/${CLIENT_SIDE_ID}/context 200`,
    `REPORT /eval/${CLIENT_SIDE_ID} 200`,
    `POST /events/bulk/${CLIENT_SIDE_ID} 202`,
  ]) {
    assert.ok(seen.has(call), `${call} is not among ${[...seen]}`);
  }
} finally {
  clearTimeout(deadline);
  rmSync(storage, { recursive: true });
}
console.log("LaunchDarkly's SDK for Node sees the flag flip");
