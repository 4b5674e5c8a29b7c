/** One's own account: roles, second factors, password, and the sessions that are open. */
import { useState, type SubmitEvent } from 'react';
import { answered, directory, type Schemas } from '../../api/directory';
import { announcer } from '../../accessibility/announcer';
import { useDocumentTitle } from '../../app/document-title';
import { Dialog } from '../../appearance/Dialog';
import { Field } from '../../appearance/Field';
import { Waiting } from '../../appearance/Waiting';
import { useDirectoryWords } from '../../words/directory-words';
import { useWords } from '../../words/words';
import { ConfirmDialog } from '../ConfirmDialog';
import { moment } from '../moment';
import { ProblemBox } from '../ProblemBox';
import { loadSession, type Me } from '../session';
import { NewPasskey } from '../sign-in/NewPasskey';
import { useNewPassword } from '../sign-in/NewPassword';
import { NewTotp } from '../sign-in/NewTotp';
import { hasPasskeys } from '../sign-in/passkey';
import { useAct, useAnswer } from '../use-answer';
import { useHeading } from '../use-heading';

interface Props {
  me: Me;
  onNewCodes: (codes: string[]) => void;
}

export function AccountPage({ me, onNewCodes }: Props) {
  const words = useDirectoryWords().account;
  useDocumentTitle(words.documentTitle);
  const heading = useHeading();
  return (
    <div className="sheet" data-testid="account">
      <h1 ref={heading} tabIndex={-1}>
        {words.title}
      </h1>
      <Self me={me} />
      <Factors me={me} onNewCodes={onNewCodes} />
      <Password />
      <Sessions />
    </div>
  );
}

function Self({ me }: { me: Me }) {
  const all = useDirectoryWords();
  const words = all.account;
  return (
    <section className="part" aria-labelledby="self">
      <h2 id="self">{me.person.name}</h2>
      <dl className="facts">
        <div>
          <dt>{all.people.login}</dt>
          <dd>{me.person.login}</dd>
        </div>
        <div>
          <dt>{words.roles}</dt>
          <dd>
            {me.roles.length === 0
              ? words.noRoles
              : [...new Set(me.roles.map(({ role }) => all.roles[role as keyof typeof all.roles]))].join(all.comma)}
          </dd>
        </div>
      </dl>
    </section>
  );
}

function Factors({ me, onNewCodes }: Props) {
  const { close } = useWords();
  const all = useDirectoryWords();
  const words = all.account;
  const factors = useAnswer('factors', () => answered(directory.GET('/api/factors')));
  const [adding, setAdding] = useState<'totp' | 'passkey' | null>(null);
  const [toRemove, setToRemove] = useState<Schemas['FactorView'] | null>(null);
  const act = useAct();
  function added(codes: string[] | null): void {
    setAdding(null);
    factors.reload();
    // The session counts as proved by two factors now.
    if (codes === null) void loadSession();
    else onNewCodes(codes);
  }
  return (
    <section className="part" aria-labelledby="factors">
      <h2 id="factors">{words.factors}</h2>
      <p className="secondary">{words.factorsHint}</p>
      {factors.problem !== null && <ProblemBox problem={factors.problem} onRetry={factors.reload} />}
      {act.problem !== null && <ProblemBox problem={act.problem} />}
      {factors.value !== null && factors.value.length === 0 && <p className="empty">{words.noFactors}</p>}
      {factors.value !== null && factors.value.length > 0 && (
        <ul role="list" className="rows">
          {factors.value.map((factor) => (
            <li key={factor.id} data-testid="factor">
              <div className="row-words">
                <strong>{factor.kind === 'totp' ? words.totp : `${words.passkey} ${factor.name}`}</strong>
                <span className="secondary numeric">{words.since(moment(factor.created_at))}</span>
              </div>
              <button type="button" className="button small" onClick={() => setToRemove(factor)}>
                {words.remove}
              </button>
            </li>
          ))}
        </ul>
      )}
      <div className="part-buttons">
        <button type="button" className="button small" data-testid="add-totp" onClick={() => setAdding('totp')}>
          {words.addTotp}
        </button>
        {me.has_passkeys && hasPasskeys() && (
          <button type="button" className="button small" data-testid="add-passkey" onClick={() => setAdding('passkey')}>
            {words.addPasskey}
          </button>
        )}
        {me.session.strength === 'two_factors' && (
          <button
            type="button"
            className="button small"
            data-testid="new-recovery-codes"
            aria-disabled={act.isBusy}
            onClick={() =>
              void act.run(async () => onNewCodes((await answered(directory.POST('/api/recovery-codes'))).recovery_codes))
            }
          >
            {words.newCodes}
          </button>
        )}
      </div>
      {adding !== null && (
        <Dialog title={adding === 'totp' ? words.addTotp : words.addPasskey} onClose={() => setAdding(null)} testId="factor-dialog">
          {adding === 'totp' ? <NewTotp onDone={added} /> : <NewPasskey onDone={added} />}
        </Dialog>
      )}
      {toRemove !== null && (
        <ConfirmDialog
          title={words.removeTitle}
          text={words.removeText}
          verb={words.remove}
          keep={close}
          onClose={() => setToRemove(null)}
          act={async () => {
            await answered(directory.DELETE('/api/factors/{id}', { params: { path: { id: toRemove.id } } }));
            factors.reload();
          }}
        />
      )}
    </section>
  );
}

function Password() {
  const all = useDirectoryWords();
  const words = all.account;
  const [round, setRound] = useState(0);
  return (
    <section className="part" aria-labelledby="password">
      <h2 id="password">{words.password}</h2>
      <p className="secondary">{words.passwordHint}</p>
      <PasswordForm
        key={round}
        onDone={() => {
          announcer.notify(words.passwordChanged);
          setRound(round + 1);
        }}
      />
    </section>
  );
}

function PasswordForm({ onDone }: { onDone: () => void }) {
  const all = useDirectoryWords();
  const words = all.account;
  const [old, setOld] = useState('');
  const [wasSent, setSent] = useState(false);
  const chosen = useNewPassword(wasSent);
  const act = useAct();
  function submit(event: SubmitEvent): void {
    event.preventDefault();
    setSent(true);
    const { password } = chosen;
    if (old === '' || password === null) return;
    void act.run(async () => {
      await answered(directory.POST('/api/password', { body: { old, new: password } }));
      onDone();
    });
  }
  return (
    <form noValidate onSubmit={submit} className="narrow-form">
      {act.problem !== null && <ProblemBox problem={act.problem} />}
      <Field
        label={words.oldPassword}
        hint={words.oldPasswordHint}
        error={wasSent && old === '' ? all.missing : null}
        type="password"
        autoComplete="current-password"
        value={old}
        onChange={(event) => setOld(event.target.value)}
        required
        data-testid="old-password"
      />
      {chosen.fields}
      <button type="submit" className="button" aria-disabled={act.isBusy} data-testid="password-submit">
        {words.changePassword}
      </button>
    </form>
  );
}

function Sessions() {
  const { opening, openingLong } = useWords();
  const words = useDirectoryWords().account;
  const sessions = useAnswer('sessions', () => answered(directory.GET('/api/sessions')));
  const act = useAct();
  return (
    <section className="part" aria-labelledby="sessions">
      <h2 id="sessions">{words.sessions}</h2>
      <p className="secondary">{words.sessionsHint}</p>
      {sessions.problem !== null && <ProblemBox problem={sessions.problem} onRetry={sessions.reload} />}
      {act.problem !== null && <ProblemBox problem={act.problem} />}
      {sessions.value === null ? (
        sessions.problem === null && <Waiting text={opening} longText={openingLong} />
      ) : (
        <ul role="list" className="rows">
          {sessions.value.map((session) => (
            <li key={session.id} data-testid="session" data-this={session.is_this}>
              <div className="row-words">
                <strong>{deviceName(session.device, words.unknownDevice)}</strong>
                {session.is_this && <span className="mark">{words.thisOne}</span>}
                <span className="secondary numeric">
                  {session.address} {words.lastSeen(moment(session.last_seen_at))}
                </span>
              </div>
              {!session.is_this && (
                <button
                  type="button"
                  className="button small"
                  data-testid="end-session"
                  aria-disabled={act.isBusy}
                  onClick={() =>
                    void act.run(async () => {
                      await answered(directory.DELETE('/api/sessions/{id}', { params: { path: { id: session.id } } }));
                      sessions.reload();
                    })
                  }
                >
                  {words.endSession}
                </button>
              )}
            </li>
          ))}
        </ul>
      )}
    </section>
  );
}

/** Browser and system out of what a browser calls itself; all of it where neither is known. */
export function deviceName(device: string, unknown: string): string {
  const browser = [
    ['Edg/', 'Edge'],
    ['Firefox/', 'Firefox'],
    ['Chrome/', 'Chrome'],
    ['Safari/', 'Safari'],
  ].find(([mark]) => device.includes(mark ?? ''))?.[1];
  const system = [
    ['HarmonyOS', 'HarmonyOS'],
    ['Android', 'Android'],
    ['iPhone', 'iPhone'],
    ['iPad', 'iPad'],
    ['Windows', 'Windows'],
    ['Mac OS X', 'macOS'],
    ['Linux', 'Linux'],
  ].find(([mark]) => device.includes(mark ?? ''))?.[1];
  const known = [browser, system].filter((part) => part !== undefined);
  return known.length > 0 ? known.join(' · ') : device === '' ? unknown : device;
}
