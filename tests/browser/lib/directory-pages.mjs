// The directory's pages, driven as a person would: first set-up, invitations, sign-in with one-time passwords.

import { createHmac } from 'node:crypto';

const at = (page, id) => page.locator(`[data-testid="${id}"]`);

/** What everybody here takes for a password. */
export const PASSWORD = 'Tingxi-2026-xiang';

const STEP_MS = 30_000;

/** A one-time password (RFC 6238) as a telephone's app shows it; `ahead` is how many half minutes from now. */
export function oneTimePassword(secret, ahead = 0) {
  const letters = 'ABCDEFGHIJKLMNOPQRSTUVWXYZ234567';
  const bits = [...secret].map((letter) => letters.indexOf(letter).toString(2).padStart(5, '0')).join('');
  const key = Buffer.from(bits.match(/.{8}/g).map((byte) => Number.parseInt(byte, 2)));
  const step = Buffer.alloc(8);
  step.writeBigInt64BE(BigInt(Math.floor(Date.now() / STEP_MS) + ahead));
  const tag = createHmac('sha1', key).update(step).digest();
  const number = tag.readUInt32BE(tag[tag.length - 1] & 0xf) & 0x7fffffff;
  return String(number % 1_000_000).padStart(6, '0');
}

/** The code that a server printed at its first start. */
export function setUpCode(server) {
  const code = server.log.match(/set-up code: ([A-Z0-9-]+)/)?.[1];
  if (!code) throw new Error(`no set-up code in what the server printed:\n${server.log}`);
  return code;
}

export const ADMINISTRATORS = {
  system: { name: '张建国', login: 'zhang.jianguo' },
  security: { name: '李秀兰', login: 'li.xiulan' },
  auditor: { name: '王志强', login: 'wang.zhiqiang' },
};

/** Fills in the form of the first set-up. */
export async function fillSetUp(page, server, organisation = '辽宁省综治中心') {
  await at(page, 'setup-code').fill(setUpCode(server));
  await at(page, 'setup-organisation').fill(organisation);
  await at(page, 'setup-division').fill('21');
  for (const [role, { name, login }] of Object.entries(ADMINISTRATORS)) {
    await at(page, `setup-${role}-name`).fill(name);
    await at(page, `setup-${role}-login`).fill(login);
  }
}

/** Sends it. What comes back are the links of the three invitations. */
export async function sendSetUp(page) {
  await at(page, 'setup-submit').click();
  await at(page, 'setup-done').waitFor();
  const links = {};
  for (const role of Object.keys(ADMINISTRATORS)) links[role] = await at(page, `setup-${role}-invitation`).innerText();
  return links;
}

/** Opens an invitation's link and chooses a password. */
export async function acceptInvitation(page, link) {
  await page.goto(link);
  await at(page, 'new-password').fill(PASSWORD);
  await at(page, 'new-password-again').fill(PASSWORD);
  await at(page, 'invitation-submit').click();
}

/** Sets up one-time passwords. What comes back is their secret and the recovery codes. */
export async function setUpTotp(page) {
  const secret = await at(page, 'totp-secret').innerText();
  await at(page, 'totp-code').fill(oneTimePassword(secret));
  await at(page, 'totp-submit').click();
  const codes = (await at(page, 'recovery-codes').innerText()).split('\n');
  await at(page, 'recovery-done').click();
  return { secret, codes };
}

/** Name and password; where a second factor is wanted, it is still to be given. */
export async function signIn(page, server, login) {
  await page.goto(`${server.url}/login`);
  await at(page, 'login').fill(login);
  await at(page, 'password').fill(PASSWORD);
  await at(page, 'sign-in-submit').click();
}

export async function signOut(page) {
  await at(page, 'sign-out').click();
  await at(page, 'sign-in').waitFor();
}

/** Makes an organisation under the one that is shown, and waits until it is shown. */
export async function createOrganisation(page, { name, code = '', kind = 'centre', level }) {
  await at(page, 'create').click();
  await at(page, 'create-kind').selectOption(kind);
  if (level) await at(page, 'create-level').selectOption(level);
  await at(page, 'create-name').fill(name);
  await at(page, 'create-code').fill(code);
  await at(page, 'create-submit').click();
  await page.getByRole('heading', { level: 1, name }).waitFor();
}

/** Invites somebody into the organisation whose people are shown. What comes back is the link. */
export async function invite(page, { name, login }) {
  await at(page, 'invite').click();
  await at(page, 'invite-name').fill(name);
  await at(page, 'invite-login').fill(login);
  await at(page, 'invite-submit').click();
  const link = await at(page, 'invitation-link').innerText();
  await at(page, 'invitation-done').click();
  return link;
}
