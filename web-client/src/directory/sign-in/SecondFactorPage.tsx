/** The second half of signing in: the second factor is given, or set up by who must have one and has none yet. */
import { useState } from 'react';
import { answered, directory } from '../../api/directory';
import { useDocumentTitle } from '../../app/document-title';
import { PageFrame } from '../../appearance/PageFrame';
import { Waiting } from '../../appearance/Waiting';
import { useDirectoryWords } from '../../words/directory-words';
import { useWords } from '../../words/words';
import { ProblemBox } from '../ProblemBox';
import { loadSession, type Me } from '../session';
import { useAnswer } from '../use-answer';
import { useHeading } from '../use-heading';
import { NewPasskey } from './NewPasskey';
import { NewTotp } from './NewTotp';
import { hasPasskeys } from './passkey';
import { ProofForm } from './ProofForm';

interface Props {
  me: Me;
  onNewCodes: (codes: string[]) => void;
  onLeave: () => void;
}

export function SecondFactorPage({ me, onNewCodes, onLeave }: Props) {
  const { opening, openingLong } = useWords();
  const words = useDirectoryWords().secondFactor;
  useDocumentTitle(words.documentTitle);
  const heading = useHeading();
  const factors = useAnswer('factors', () => answered(directory.GET('/api/factors')));
  const mustSetUp = factors.value?.length === 0;
  const [by, setBy] = useState<'totp' | 'passkey'>('totp');
  const done = (codes: string[] | null): void => (codes === null ? void loadSession() : onNewCodes(codes));
  return (
    <PageFrame>
      <section className="card narrow">
        <h1 ref={heading} tabIndex={-1}>
          {mustSetUp ? words.setUpTitle : words.title}
        </h1>
        <p className="lead">{mustSetUp ? words.setUpLead(me.person.name) : words.lead(me.person.name)}</p>
        {factors.problem !== null ? (
          <ProblemBox problem={factors.problem} onRetry={factors.reload} />
        ) : factors.value === null ? (
          <Waiting text={opening} longText={openingLong} />
        ) : mustSetUp ? (
          <>
            {by === 'totp' ? <NewTotp onDone={done} /> : <NewPasskey onDone={done} />}
            {me.has_passkeys && hasPasskeys() && (
              <button
                type="button"
                className="button quiet wide"
                data-testid="other-factor"
                onClick={() => setBy(by === 'totp' ? 'passkey' : 'totp')}
              >
                {by === 'totp' ? words.usePasskey : words.useTotp}
              </button>
            )}
          </>
        ) : (
          <ProofForm factors={factors.value} verb={words.submit} />
        )}
        <button type="button" className="button quiet wide" data-testid="sign-in-leave" onClick={onLeave}>
          {words.leave}
        </button>
      </section>
    </PageFrame>
  );
}
