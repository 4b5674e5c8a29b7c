// The directory's pages in every state. What can happen only once on a server (its set-up, an invitation) or takes an
// administrator's second factor is answered here in the server's place.

import {
  acceptInvitation, ADMINISTRATORS, createOrganisation, fillSetUp, invite, oneTimePassword, sendSetUp, setUpTotp,
} from '../lib/directory-pages.mjs';

const at = (page, id) => page.locator(`[data-testid="${id}"]`);

const CITIES = [
  ['沈阳市综治中心', '2101'], ['大连市综治中心', '2102'], ['鞍山市综治中心', '2103'], ['抚顺市综治中心', '2104'],
  ['本溪市综治中心', '2105'], ['丹东市综治中心', '2106'],
];

const PEOPLE = [
  ['赵敏', 'zhao.min'], ['钱学文', 'qian.xuewen'], ['孙丽华', 'sun.lihua'], ['欧阳振华', 'ouyang.zhenhua'],
];

/** Sets a server's directory up with something to look at. What comes back are the administrators' cookies. */
export async function furnish(browser, server) {
  const cookies = {};
  const page = await (await browser.newContext({ locale: 'zh-CN' })).newPage();
  await page.goto(`${server.url}/setup`);
  await fillSetUp(page, server);
  const links = await sendSetUp(page);
  await page.context().close();
  const come = async (role) => {
    const own = await (await browser.newContext({ locale: 'zh-CN', viewport: { width: 1280, height: 800 } })).newPage();
    await acceptInvitation(own, links[role]);
    const { secret } = await setUpTotp(own);
    await at(own, 'who').waitFor();
    cookies[role] = async () => (await own.context().storageState()).cookies;
    return { page: own, secret };
  };
  const { page: system } = await come('system');
  for (const [name, code] of CITIES) {
    await system.getByRole('treeitem', { name: '辽宁省综治中心' }).click();
    await system.getByRole('heading', { level: 1, name: '辽宁省综治中心' }).waitFor();
    await createOrganisation(system, { name, code, level: 'city' });
  }
  await createOrganisation(system, { name: '丹东市司法局人民调解工作指导处', kind: 'department' });
  await system.getByRole('treeitem', { name: '大连市综治中心' }).click();
  await system.getByRole('heading', { level: 1, name: '大连市综治中心' }).waitFor();
  const city = system.url();
  await at(system, 'tab-people').click();
  for (const [name, login] of PEOPLE) {
    const link = await invite(system, { name, login });
    if (login !== 'zhao.min') continue;
    const own = await (await browser.newContext({ locale: 'zh-CN' })).newPage();
    await acceptInvitation(own, link);
    await at(own, 'account').waitFor();
    await own.context().close();
  }
  await at(system, 'tab-places').click();
  for (const name of ['第一会场', '应急指挥大厅']) {
    await at(system, 'create-place').click();
    await at(system, 'place-name').fill(name);
    await at(system, 'place-submit').click();
    await at(system, 'place').filter({ hasText: name }).waitFor();
  }
  const { page: security } = await come('security');
  await security.goto(city);
  await at(security, 'tab-posts').click();
  for (const [title, role] of [['主任岗', 'head'], ['会务与值班岗', 'conference_operator']]) {
    await at(security, 'create-post').click();
    await at(security, 'post-title').fill(title);
    await at(security, `role-${role}`).check();
    await at(security, 'post-submit').click();
    await at(security, 'post').filter({ hasText: title }).waitFor();
  }
  await at(security, 'appoint').first().click();
  await at(security, 'appoint-submit').click();
  await at(security, 'holder').waitFor();
  await come('auditor');
  return { city, cookies: Object.fromEntries(await Promise.all(Object.entries(cookies).map(async ([role, read]) => [role, await read()]))) };
}

const PROBLEM = { contentType: 'application/problem+json' };

/** Somebody whose second factor is missing, as the server would say it. */
function half({ name, login }) {
  const id = '01890000-0000-7000-8000-000000000001';
  return {
    session: {
      id, person: id, device: '', address: null, created_at: 0, last_seen_at: 0, expires_at: 0, strength: 'password', verified_at: 0,
      needs_second_factor: true, is_this: true,
    },
    person: { id, organisation: id, name, login, state: 'active', created_at: 0, left_at: null, version: 1 },
    roles: [],
    has_passkeys: true,
  };
}

/** Takes the pictures of one variant. */
export async function directory(v, { city, cookies }) {
  const { url } = v.server;
  // The other language differs in the length of its words, and what is large in its size alone: less of them is enough.
  const some = v.isPlain ? ['setup', 'login', 'account', 'organisation', 'posts', 'audit'] : ['login', 'organisations', 'people', 'audit'];
  const isWanted = (name) => (v.isPlain && v.preferences.language === 'zh') || some.includes(name);
  const state = (name, act) => isWanted(name) && v.state(name, act);
  const as = (role, name, act) => state(name, async (page) => {
    await page.context().addCookies(cookies[role]);
    await act(page);
  });
  const setUpIsNeeded = (page) => page.route('**/api/setup', (route) => (route.request().method() === 'GET'
    ? route.fulfill({ json: { is_needed: true, has_passkeys: false, is_secure: true } })
    : route.fulfill({ status: 201, json: invited(url) })));

  await state('setup', async (page) => {
    await setUpIsNeeded(page);
    await page.goto(`${url}/login`);
    await at(page, 'to-setup').waitFor();
    await v.shoot(page, 'login-nobody-yet');
    await at(page, 'to-setup').click();
    await at(page, 'setup-submit').waitFor();
    await v.shoot(page, 'setup');
    await at(page, 'setup-submit').click();
    await v.shootWhole(page, 'setup-empty');
    await at(page, 'setup-code').fill('K7PQM-ABCDE-FGHJK-23456');
    await at(page, 'setup-organisation').fill('辽宁省综治中心');
    for (const [role, { name, login }] of Object.entries(ADMINISTRATORS)) {
      await at(page, `setup-${role}-name`).fill(name);
      await at(page, `setup-${role}-login`).fill(login);
    }
    await at(page, 'setup-submit').click();
    await at(page, 'setup-done').waitFor();
    await v.shoot(page, 'setup-done');
    await v.shootWhole(page, 'setup-done');
  });
  await state('setup-already', async (page) => {
    await page.goto(`${url}/setup`);
    await at(page, 'setup-login').waitFor();
    await v.shoot(page, 'setup-already');
  });
  await state('login', async (page) => {
    await page.route('**/api/session', (route) => (route.request().method() === 'POST'
      ? route.fulfill({ status: 429, headers: { 'Retry-After': '30' }, ...PROBLEM, json: tooMany })
      : route.fallback()));
    await page.goto(`${url}/login`);
    await at(page, 'login').fill('zhao.min');
    await at(page, 'password').fill('x');
    await v.shoot(page, 'login');
    await at(page, 'sign-in-submit').click();
    await at(page, 'problem').waitFor();
    await v.shoot(page, 'login-too-many');
  });
  await state('invitation', async (page) => {
    await page.goto(`${url}/invitation#not-a-good-one`);
    await at(page, 'invitation-submit').click();
    await v.shoot(page, 'invitation-empty');
    await at(page, 'new-password').fill('Tingxi-2026-xiang');
    await at(page, 'new-password-again').fill('Tingxi-2026-xiang');
    await at(page, 'invitation-submit').click();
    await at(page, 'problem').waitFor();
    await v.shoot(page, 'invitation-used');
  });
  await state('second-factor', async (page) => {
    await page.route('**/api/session', (route) => route.fulfill({ json: half(ADMINISTRATORS.system) }));
    await page.route('**/api/factors', (route) => route.fulfill({ json: [] }));
    await page.route('**/api/factors/totp', (route) => route.fulfill({ status: 201, json: {
      id: '01890000-0000-7000-8000-000000000002', secret: 'JBSWY3DPEHPK3PXPJBSWY3DPEHPK3PXP',
      uri: 'otpauth://totp/%E6%A2%AF%E7%94%B0%E8%A7%86%E8%81%94:zhang.jianguo?secret=JBSWY3DPEHPK3PXPJBSWY3DPEHPK3PXP&issuer=%E6%A2%AF%E7%94%B0%E8%A7%86%E8%81%94',
    } }));
    await page.route('**/api/factors/totp/*', (route) => route.fulfill({ json: {
      recovery_codes: ['abcde-fghij', 'klmno-pqrst', 'uvwxy-z2345', '67abc-defgh', 'ijklm-nopqr', 'stuvw-xyz23', '4567a-bcdef', 'ghijk-lmnop', 'qrstu-vwxyz', '23456-7abcd'],
    } }));
    await page.goto(`${url}/login`);
    await at(page, 'totp-code').waitFor();
    await v.shoot(page, 'second-factor-new');
    await v.shootWhole(page, 'second-factor-new');
    await at(page, 'totp-code').fill(oneTimePassword('JBSWY3DPEHPK3PXPJBSWY3DPEHPK3PXP'));
    await at(page, 'totp-submit').click();
    await at(page, 'recovery-codes').waitFor();
    await v.shoot(page, 'recovery-codes');
  });
  await state('second-factor-given', async (page) => {
    await page.route('**/api/session', (route) => route.fulfill({ json: half(ADMINISTRATORS.system) }));
    await page.route('**/api/factors', (route) => route.fulfill({ json: [
      { id: 'x', kind: 'totp', name: '', created_at: 0, last_used_at: null }, { id: 'y', kind: 'passkey', name: '办公电脑', created_at: 0, last_used_at: null },
    ] }));
    await page.goto(`${url}/login`);
    await at(page, 'proof').waitFor();
    await v.shoot(page, 'second-factor');
  });
  await as('system', 'account', async (page) => {
    await page.goto(`${url}/account`);
    await at(page, 'session').first().waitFor();
    await v.shoot(page, 'account');
    await v.shootWhole(page, 'account');
    await at(page, 'add-passkey').click();
    await at(page, 'passkey-submit').click();
    await v.shoot(page, 'account-passkey');
  });
  await as('system', 'organisations', async (page) => {
    await page.goto(`${url}/admin/organisations`);
    await at(page, 'tree-row').nth(CITIES.length).waitFor();
    await v.shoot(page, 'organisations');
    await at(page, 'organisation-search').fill('dds');
    await at(page, 'result').first().waitFor();
    await v.shoot(page, 'organisations-found');
    await at(page, 'organisation-search').fill('火星');
    await page.locator('.search .empty').waitFor();
    await v.shoot(page, 'organisations-not-found');
  });
  await as('system', 'organisation', async (page) => {
    await page.goto(city);
    await page.locator('[data-testid="history"] li').first().waitFor();
    await v.shoot(page, 'organisation');
    await at(page, 'create').click();
    await v.shoot(page, 'organisation-create');
    await page.keyboard.press('Escape');
    await at(page, 'move').click();
    await at(page, 'move-search').fill('shenyang');
    await at(page, 'move-submit').click();
    await v.shoot(page, 'organisation-move');
    await page.keyboard.press('Escape');
    await at(page, 'close').click();
    await at(page, 'confirm').waitFor();
    await v.shoot(page, 'organisation-close');
    await at(page, 'confirm').click();
    // What the server says where people are in it, or first wants a proof.
    await at(page, 'problem').or(at(page, 'proof')).first().waitFor();
    await v.shoot(page, 'organisation-close-refused');
  });
  await as('system', 'people', async (page) => {
    await page.goto(city);
    await at(page, 'tab-people').click();
    await at(page, 'person').first().waitFor();
    await v.shoot(page, 'people');
    await v.shootWhole(page, 'people');
    await at(page, 'invite').click();
    await at(page, 'invite-submit').click();
    await v.shoot(page, 'people-invite');
    await page.route('**/api/organisations/*/persons', (route) => route.fulfill({ status: 201, json: invited(url).system }));
    await at(page, 'invite-name').fill('周涛');
    await at(page, 'invite-login').fill('zhou.tao');
    await at(page, 'invite-submit').click();
    await at(page, 'invitation-link').waitFor();
    await v.shoot(page, 'people-link');
  });
  await as('system', 'halls', async (page) => {
    await page.goto(city);
    await at(page, 'tab-places').click();
    await at(page, 'place').first().waitFor();
    await v.shoot(page, 'halls');
    await at(page, 'create-place').click();
    await at(page, 'place-kind').selectOption('room');
    await v.shoot(page, 'halls-create');
    await page.keyboard.press('Escape');
    await at(page, 'keys').first().click();
    await at(page, 'key-name').fill('主会场左屏');
    await page.route('**/api/places/*/keys', (route) => (route.request().method() === 'POST'
      ? route.fulfill({ status: 201, json: { id: 'x', place: 'x', name: '主会场左屏', created_at: 0, last_used_at: null, revoked_at: null, key: 'tk_7Yh2mQ9sKx4Lw8Zp3Rv6Nc1Bf5Tj0Gd' } })
      : route.fallback()));
    await at(page, 'issue-key').click();
    await at(page, 'device-key').waitFor();
    await v.shoot(page, 'hall-keys');
  });
  await as('security', 'posts', async (page) => {
    await page.goto(city);
    await at(page, 'tab-posts').click();
    await at(page, 'holder').first().waitFor();
    await v.shoot(page, 'posts');
    await v.shootWhole(page, 'posts');
    await at(page, 'appoint').first().click();
    await at(page, 'appoint-submit').waitFor();
    await v.shoot(page, 'posts-appoint');
    await page.keyboard.press('Escape');
    await page.route('**/api/organisations/*/posts', (route) => (route.request().method() === 'POST'
      ? route.fulfill({ status: 403, ...PROBLEM, json: { code: 'step_up_needed', title: '请再次验证身份', detail: '', next: '' } })
      : route.fallback()));
    await at(page, 'create-post').click();
    await at(page, 'post-title').fill('值班岗');
    await at(page, 'role-duty_officer').check();
    await v.shoot(page, 'posts-create');
    await at(page, 'post-submit').click();
    await at(page, 'proof').waitFor();
    await v.shoot(page, 'proof');
  });
  await as('auditor', 'audit', async (page) => {
    await page.goto(`${url}/admin/audit`);
    await at(page, 'audit-entry').first().waitFor();
    await v.shoot(page, 'audit');
    await page.locator('summary').first().click();
    await v.shoot(page, 'audit-more');
    await at(page, 'audit-until').fill('2020-01-01');
    await at(page, 'audit-filter').click();
    await page.locator('.empty').waitFor();
    await v.shoot(page, 'audit-none');
  });
  await as('auditor', 'reason', async (page) => {
    await page.goto(city);
    await at(page, 'tab-people').click();
    await at(page, 'reason').waitFor();
    await at(page, 'reason-submit').click();
    await v.shoot(page, 'reason');
  });
}

const tooMany = { code: 'too_many_attempts', title: '尝试次数过多', detail: '错误次数过多，暂时不能再试。', next: '请稍等片刻后重试。' };

/** Invitations that open nothing. */
function invited(url) {
  const one = (role) => ({
    person: { id: role, organisation: 'x', ...ADMINISTRATORS[role], state: 'invited', created_at: 0, left_at: null, version: 1 },
    invitation: `${url}/invitation#9f2c7d41b8a05e63f1d4c2b7a8901e5f6d3c`,
  });
  return { organisation: null, system: one('system'), security: one('security'), auditor: one('auditor') };
}
