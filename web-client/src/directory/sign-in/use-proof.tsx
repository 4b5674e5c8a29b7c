import { useState, type ReactNode } from 'react';
import { answered, directory } from '../../api/directory';
import { Field } from '../../appearance/Field';
import { useDirectoryWords } from '../../words/directory-words';
import { signedInAs } from '../session';

type By = 'totp' | 'recovery_code' | 'password';

/** The field in which one proves who one is, the button to another way, and what is done with it. */
export function useProof(first: By): { field: ReactNode; other: ReactNode; give: () => Promise<void> } {
  const words = useDirectoryWords().proof;
  const [by, setBy] = useState<By>(first);
  const [typed, setTyped] = useState('');
  const ways = {
    totp: { label: words.totp, hint: words.totpHint, type: 'text', inputMode: 'numeric', autoComplete: 'one-time-code' },
    recovery_code: { label: words.recovery, hint: words.recoveryHint, type: 'text', inputMode: 'text', autoComplete: 'off' },
    password: { label: words.password, hint: words.passwordHint, type: 'password', inputMode: 'text', autoComplete: 'current-password' },
  } as const;
  const way = ways[by];
  return {
    field: (
      <Field
        key={by}
        label={way.label}
        hint={way.hint}
        error={null}
        type={way.type}
        inputMode={way.inputMode}
        autoComplete={way.autoComplete}
        className={by === 'password' ? '' : 'numeric code-input'}
        value={typed}
        onChange={(event) => setTyped(event.target.value)}
        required
        data-testid="proof"
      />
    ),
    other:
      by === 'password' ? null : (
        <button
          type="button"
          className="button quiet"
          data-testid="proof-other"
          onClick={() => {
            setBy(by === 'totp' ? 'recovery_code' : 'totp');
            setTyped('');
          }}
        >
          {by === 'totp' ? words.useRecovery : words.useTotp}
        </button>
      ),
    give: async () => {
      const value = by === 'password' ? typed : typed.trim();
      const body = by === 'totp' ? { totp: value } : by === 'password' ? { password: value } : { recovery_code: value };
      signedInAs(await answered(directory.POST('/api/session/proof', { body })));
    },
  };
}
