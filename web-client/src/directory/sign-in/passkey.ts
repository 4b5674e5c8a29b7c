/** Passkeys (Web Authentication): the browser makes and shows them; here its questions and answers are carried. */
import { answered, directory, DirectoryProblem } from '../../api/directory';
import { signedInAs } from '../session';

/** Whether this browser knows passkeys and reads the server's questions by itself. */
export function hasPasskeys(): boolean {
  return (
    typeof PublicKeyCredential === 'function' &&
    'parseCreationOptionsFromJSON' in PublicKeyCredential &&
    'parseRequestOptionsFromJSON' in PublicKeyCredential
  );
}

type AskFor<T> = { publicKey: T };

/** What the browser answered; whoever cancels, or has no such passkey, is told so in our words. */
async function answerOf(asking: Promise<Credential | null>): Promise<unknown> {
  const credential = await asking.catch(() => null);
  if (!(credential instanceof PublicKeyCredential)) throw new DirectoryProblem('no_passkey', '', '', '', null);
  return credential.toJSON();
}

/** Makes a passkey. What comes back are recovery codes, for who had none. */
export async function makePasskey(name: string): Promise<string[] | null> {
  const { factor, options } = await answered(directory.POST('/api/factors/passkey'));
  const { publicKey } = options as unknown as AskFor<PublicKeyCredentialCreationOptionsJSON>;
  const answer = await answerOf(
    navigator.credentials.create({ publicKey: PublicKeyCredential.parseCreationOptionsFromJSON(publicKey) }),
  );
  const params = { path: { id: factor ?? '' } };
  const body = { name, answer: answer as Record<string, never> };
  const done = await answered(directory.POST('/api/factors/passkey/{id}', { params, body }));
  return done.recovery_codes ?? null;
}

/** Shows a passkey, as the second factor or to prove again who one is. */
export async function showPasskey(): Promise<void> {
  const { options } = await answered(directory.POST('/api/session/passkey-challenge'));
  const { publicKey } = options as unknown as AskFor<PublicKeyCredentialRequestOptionsJSON>;
  const passkey = await answerOf(
    navigator.credentials.get({ publicKey: PublicKeyCredential.parseRequestOptionsFromJSON(publicKey) }),
  );
  signedInAs(await answered(directory.POST('/api/session/proof', { body: { passkey } })));
}
