// The directory's pages: first set-up, sign-in, organisations, people and posts, the audit log.

import assert from 'node:assert/strict';
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { Belongings, startChromium } from '../lib/browsers.mjs';
import {
  acceptInvitation, ADMINISTRATORS, createOrganisation, fillSetUp, invite, oneTimePassword, sendSetUp, setUpTotp, signIn, signOut,
} from '../lib/directory-pages.mjs';
import { Server } from '../lib/server.mjs';
import { until, untilValue } from '../lib/waiting.mjs';

const suite = new Belongings();
let server;
let browser;
/** The links of the first three invitations. */
let links;
/** Each administrator's browser and secrets. */
const people = {};

const at = (page, id) => page.locator(`[data-testid="${id}"]`);

async function newPage() {
  const context = await browser.newContext({ viewport: { width: 1280, height: 800 }, locale: 'zh-CN' });
  const page = await context.newPage();
  page.setDefaultTimeout(45_000);
  return page;
}

before(async () => {
  server = suite.add(await Server.start(), () => server.stop());
  browser = suite.add(await startChromium(1));
});
after(() => suite.closeAll());

/** An administrator comes by invitation and sets up the second factor. */
async function come(role) {
  const page = await newPage();
  await acceptInvitation(page, links[role]);
  people[role] = { page, ...(await setUpTotp(page)) };
  await at(page, 'who').waitFor();
  assert.equal(await at(page, 'who').innerText(), ADMINISTRATORS[role].name);
  return page;
}

test('whoever has the code sets the deployment up, once', async () => {
  const page = await newPage();
  await page.goto(`${server.url}/login`);
  await at(page, 'to-setup').click();
  await at(page, 'setup-submit').click();
  assert.equal(await page.locator('.field-error').count(), 8, 'eight fields must be filled in');
  await fillSetUp(page, server);
  await at(page, 'setup-code').fill('AAAAA-AAAAA-AAAAA-AAAAA');
  await at(page, 'setup-submit').click();
  assert.equal(await at(page, 'problem').getAttribute('data-code'), 'wrong');
  await fillSetUp(page, server);
  links = await sendSetUp(page);
  await at(page, 'setup-login').click();
  await at(page, 'sign-in').waitFor();
  assert.equal(await at(page, 'to-setup').count(), 0, 'it is offered again');
  await page.goto(`${server.url}/setup`);
  await page.getByRole('heading', { name: '已经设置过了' }).waitFor();
});

test('an administrator chooses a password, must set up a second factor, and signs in with both', async () => {
  const page = await come('system');
  await at(page, 'organisation').waitFor();
  await signOut(page);
  await at(page, 'login').fill(ADMINISTRATORS.system.login);
  await at(page, 'password').fill('Not-the-right-1');
  await at(page, 'sign-in-submit').click();
  await at(page, 'problem').waitFor();
  assert.equal(await at(page, 'problem').getAttribute('data-code'), 'wrong');
  await signIn(page, server, ADMINISTRATORS.system.login);
  await at(page, 'proof').fill('000000');
  await at(page, 'proof-submit').click();
  await at(page, 'problem').waitFor();
  // The code that was shown at the set-up works no second time.
  await at(page, 'proof').fill(oneTimePassword(people.system.secret, 1));
  await at(page, 'proof-submit').click();
  await at(page, 'organisation').waitFor();
  const again = await newPage();
  await again.goto(links.system);
  await at(again, 'new-password').fill('Another-Good-1');
  await at(again, 'new-password-again').fill('Another-Good-1');
  await at(again, 'invitation-submit').click();
  await until('the link is used up', async () => (await at(again, 'problem').getAttribute('data-code')) === 'bad_invitation');
  await again.context().close();
});

test('a recovery code stands in for the telephone, and a passkey is a second factor from then on', async () => {
  const page = await newPage();
  const devices = await page.context().newCDPSession(page);
  await devices.send('WebAuthn.enable');
  await devices.send('WebAuthn.addVirtualAuthenticator', {
    options: { protocol: 'ctap2', transport: 'internal', hasResidentKey: true, hasUserVerification: true, isUserVerified: true, automaticPresenceSimulation: true },
  });
  // Passkeys belong to a domain name.
  const named = { url: server.url.replace('127.0.0.1', 'localhost') };
  await signIn(page, named, ADMINISTRATORS.system.login);
  await at(page, 'proof-other').click();
  await at(page, 'proof').fill(people.system.codes[0]);
  await at(page, 'proof-submit').click();
  await at(page, 'place-account').click();
  await at(page, 'add-passkey').click();
  await at(page, 'passkey-name').fill('办公电脑');
  await at(page, 'passkey-submit').click();
  await untilValue('both factors are listed', () => at(page, 'factor').count(), (count) => count === 2);
  await signOut(page);
  await signIn(page, named, ADMINISTRATORS.system.login);
  await at(page, 'proof-passkey').click();
  await at(page, 'account').or(at(page, 'organisations')).waitFor();
  await page.context().close();
});

test('somebody who is invited signs in as a new person, sees their sessions and ends them', async () => {
  const { page } = people.system;
  await createOrganisation(page, { name: '大连市综治中心', code: '2102', level: 'city' });
  await at(page, 'tab-people').click();
  await page.getByText('还没有人员').waitFor();
  const link = await invite(page, { name: '赵敏', login: 'zhao.min' });
  await page.locator('[data-testid="person"][data-state="invited"]').waitFor();
  const own = await newPage();
  await acceptInvitation(own, link);
  await at(own, 'account').waitFor();
  assert.equal(await at(own, 'who').innerText(), '赵敏');
  assert.equal(await at(own, 'place-organisations').count(), 0, 'without a role there are no organisations to be seen');
  await signOut(own);
  await signIn(own, server, 'zhao.min');
  await at(own, 'account').waitFor();
  const elsewhere = await newPage();
  await signIn(elsewhere, server, 'zhao.min');
  await at(elsewhere, 'account').waitFor();
  await own.reload();
  await untilValue('both are listed', () => at(own, 'session').count(), (count) => count === 2);
  await at(own, 'end-session').click();
  await untilValue('one is left', () => at(own, 'session').count(), (count) => count === 1);
  await elsewhere.reload();
  await at(elsewhere, 'sign-in').waitFor();
  await elsewhere.context().close();
  await at(own, 'old-password').fill('wrong');
  await at(own, 'new-password').fill('Another-Good-1');
  await at(own, 'new-password-again').fill('Another-Good-1');
  await at(own, 'password-submit').click();
  await at(own, 'problem').waitFor();
  assert.equal(await at(own, 'problem').getAttribute('data-code'), 'wrong');
  await own.context().close();
});

test('organisations are found, renamed, moved and closed, by keys too', async () => {
  const { page } = people.system;
  await createOrganisation(page, { name: '中山区综治中心', code: '210202', level: 'county' });
  await at(page, 'rename').click();
  await at(page, 'rename-name').fill('中山区社会治安综合治理中心');
  await at(page, 'rename-submit').click();
  await page.getByRole('heading', { level: 1, name: '中山区社会治安综合治理中心' }).waitFor();
  await page.getByRole('treeitem', { name: '中山区社会治安综合治理中心' }).waitFor();
  // Up the tree by keys, and chosen there.
  await page.getByRole('treeitem', { name: '中山区' }).focus();
  await page.keyboard.press('ArrowLeft');
  await page.keyboard.press('ArrowLeft');
  await untilValue('the city is closed', () => page.getByRole('treeitem').count(), (count) => count === 2);
  await page.keyboard.press('ArrowRight');
  await page.getByRole('treeitem', { name: '中山区' }).waitFor();
  await page.keyboard.press('ArrowLeft');
  await page.keyboard.press('Home');
  await page.keyboard.press('Enter');
  await page.getByRole('heading', { level: 1, name: '辽宁省综治中心' }).waitFor();
  await createOrganisation(page, { name: '沈阳市综治中心', code: '2101', level: 'city' });
  for (const text of ['zsq', '中山区', '210202']) {
    await at(page, 'organisation-search').fill(text);
    await untilValue(`${text} finds it`, () => at(page, 'result').allInnerTexts(), (found) => found.length === 1 && found[0].startsWith('中山区'));
  }
  await at(page, 'result').click();
  await page.getByRole('heading', { level: 1, name: '中山区' }).waitFor();
  await at(page, 'organisation-search').fill('');
  await at(page, 'move').click();
  await at(page, 'move-search').fill('sys');
  await page.locator('[data-testid="move-dialog"] [data-testid="result"]').click();
  await at(page, 'move-submit').click();
  await page.getByRole('navigation', { name: '上级机构' }).getByText('沈阳市综治中心').waitFor();
  await at(page, 'close').click();
  await at(page, 'confirm').click();
  await page.getByText('已撤销').waitFor();
  assert.equal(await at(page, 'rename').count(), 0, 'what is closed can still be changed');
});

test('a post gives its roles and takes them away, after a proof of who one is', async () => {
  const page = await come('security');
  const { secret } = people.security;
  await page.getByRole('treeitem', { name: '大连市综治中心' }).click();
  await at(page, 'tab-posts').click();
  // As if the proof was older than five minutes.
  let isRefused = true;
  await page.route('**/api/organisations/*/posts', (route) => {
    if (route.request().method() !== 'POST' || !isRefused) return route.fallback();
    isRefused = false;
    return route.fulfill({ status: 403, contentType: 'application/problem+json', json: { code: 'step_up_needed', title: '请再次验证身份' } });
  });
  await at(page, 'create-post').click();
  await at(page, 'post-title').fill('会务岗');
  await at(page, 'role-conference_operator').check();
  await at(page, 'post-submit').click();
  await at(page, 'proof').fill(oneTimePassword(secret, 1));
  await page.locator('[data-testid="proof-dialog"] [data-testid="proof-submit"]').click();
  await at(page, 'post').waitFor();
  await at(page, 'appoint').click();
  await page.locator('[data-testid="appoint-person"] option', { hasText: '赵敏' }).waitFor({ state: 'attached' });
  await at(page, 'appoint-submit').click();
  await page.locator('[data-testid="holder"]', { hasText: '赵敏' }).waitFor();
  const own = await newPage();
  await signIn(own, server, 'zhao.min');
  await at(own, 'organisation').waitFor();
  assert.equal(await at(own, 'create').count(), 0, 'a conference operator may make no organisations');
  await at(page, 'dismiss').click();
  await at(page, 'confirm').click();
  await page.getByText('空缺').waitFor();
  await own.reload();
  await until('the role is gone', async () => (await at(own, 'place-organisations').count()) === 0);
  await own.context().close();
});

test('the auditor finds what happened, and takes it away as a table', async () => {
  const page = await come('auditor');
  await at(page, 'audit-entry').first().waitFor();
  await at(page, 'audit-action').selectOption('grant_roles');
  await at(page, 'audit-filter').click();
  await untilValue('only what was wanted is shown', () => at(page, 'audit-entry').evaluateAll((all) => all.map((one) => one.dataset.action)), (actions) =>
    actions.length > 0 && actions.every((action) => action === 'grant_roles'));
  const coming = page.waitForEvent('download');
  await at(page, 'export-csv').click();
  const file = join(server.data, 'exported.csv');
  await (await coming).saveAs(file);
  const lines = (await readFile(file, 'utf8')).trimEnd().split('\n');
  assert.match(lines[0], /^\ufeffsequence,at,/);
  assert.ok(lines.length > 3 && lines.slice(1).every((line) => line.includes(',grant_roles,')), lines.join('\n'));
  await at(page, 'audit-action').selectOption('');
  await at(page, 'audit-from').fill('2020-01-01');
  await at(page, 'audit-until').fill('2020-01-02');
  await at(page, 'audit-filter').click();
  await page.getByText('没有符合条件的记录').waitFor();
});

test('what could not be fetched of the tree can be opened once more', async () => {
  const { page } = people.system;
  let isBroken = true;
  await page.route('**/api/organisations?parent=*', (route) => (isBroken ? route.abort() : route.fallback()));
  await page.goto(`${server.url}/admin/organisations`);
  await page.locator('.tree-part [data-testid="problem"]').waitFor();
  isBroken = false;
  await page.getByRole('treeitem', { name: '辽宁省综治中心' }).focus();
  await page.keyboard.press('ArrowRight');
  await page.getByRole('treeitem', { name: '大连市综治中心' }).waitFor();
  assert.equal(await page.locator('.tree-part [data-testid="problem"]').count(), 0);
});

test('a server that is out of reach is told of in words, and the page goes on when it is back', async () => {
  const page = await newPage();
  await page.goto(`${server.url}/login`);
  await at(page, 'login').waitFor();
  await page.context().setOffline(true);
  await at(page, 'login').fill('zhao.min');
  await at(page, 'password').fill('x');
  await at(page, 'sign-in-submit').click();
  await at(page, 'problem').waitFor();
  assert.match(await at(page, 'problem').innerText(), /连不上服务器/);
  await page.context().setOffline(false);
  await at(page, 'sign-in-submit').click();
  await untilValue('the server is heard again', () => at(page, 'problem').getAttribute('data-code'), (code) => code === 'wrong');
  await signIn(page, server, 'zhao.min');
  await at(page, 'account').waitFor();
});
