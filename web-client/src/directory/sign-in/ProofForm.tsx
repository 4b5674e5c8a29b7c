import { useState, type SubmitEvent } from 'react';
import { answered, directory, type Schemas } from '../../api/directory';
import { Field } from '../../appearance/Field';
import { useDirectoryWords } from '../../words/directory-words';
import { ProblemBox } from '../ProblemBox';
import { signedInAs } from '../session';
import { useAct } from '../use-answer';
import { hasPasskeys, showPasskey } from './passkey';

type By = 'totp' | 'recovery_code' | 'password';

interface Props {
  /** One's second factors; who has none proves it by the password. */
  factors: readonly Schemas['FactorView'][];
  verb: string;
  onProved?: () => void;
}

/** Proves who one is: by a passkey, a one-time password, a recovery code, or the password. */
export function ProofForm({ factors, verb, onProved }: Props) {
  const words = useDirectoryWords().proof;
  const has = (kind: string): boolean => factors.some((factor) => factor.kind === kind);
  const ways: By[] = factors.length === 0 ? ['password'] : has('totp') ? ['totp', 'recovery_code'] : ['recovery_code'];
  const [chosen, setChosen] = useState<By | null>(null);
  const by = chosen ?? ways[0] ?? 'password';
  const other = ways.find((way) => way !== by);
  const [typed, setTyped] = useState('');
  const act = useAct();
  const fields = {
    totp: { label: words.totp, hint: words.totpHint, type: 'text', inputMode: 'numeric', autoComplete: 'one-time-code' },
    recovery_code: { label: words.recovery, hint: words.recoveryHint, type: 'text', inputMode: 'text', autoComplete: 'off' },
    password: { label: words.password, hint: words.passwordHint, type: 'password', inputMode: 'text', autoComplete: 'current-password' },
  } as const;
  const field = fields[by];

  function submit(event: SubmitEvent): void {
    event.preventDefault();
    const value = typed.trim();
    const body = by === 'totp' ? { totp: value } : by === 'password' ? { password: typed } : { recovery_code: value };
    void act.run(async () => {
      signedInAs(await answered(directory.POST('/api/session/proof', { body })));
      onProved?.();
    });
  }

  return (
    <form noValidate onSubmit={submit}>
      {act.problem !== null && <ProblemBox problem={act.problem} />}
      {has('passkey') && hasPasskeys() && (
        <button
          type="button"
          className="button wide proof-passkey"
          aria-disabled={act.isBusy}
          data-testid="proof-passkey"
          onClick={() =>
            void act.run(async () => {
              await showPasskey();
              onProved?.();
            })
          }
        >
          {words.usePasskey}
        </button>
      )}
      <Field
        key={by}
        label={field.label}
        hint={field.hint}
        error={null}
        type={field.type}
        inputMode={field.inputMode}
        autoComplete={field.autoComplete}
        className={by === 'password' ? '' : 'numeric code-input'}
        value={typed}
        onChange={(event) => setTyped(event.target.value)}
        required
        data-testid="proof"
      />
      <div className="stacked-buttons">
        <button type="submit" className="button primary" aria-disabled={act.isBusy} data-testid="proof-submit">
          {verb}
        </button>
        {other !== undefined && (
          <button
            type="button"
            className="button quiet"
            data-testid="proof-other"
            onClick={() => {
              setChosen(other);
              setTyped('');
            }}
          >
            {other === 'totp' ? words.useTotp : words.useRecovery}
          </button>
        )}
      </div>
    </form>
  );
}
