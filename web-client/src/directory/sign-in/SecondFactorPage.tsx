/** The second half of signing in: the second factor is given, or set up by who must have one and has none yet. */
import type { SubmitEvent } from 'react';
import { answered, directory } from '../../api/directory';
import { useDocumentTitle } from '../../app/document-title';
import { PageFrame } from '../../appearance/PageFrame';
import { Waiting } from '../../appearance/Waiting';
import { useDirectoryWords } from '../../words/directory-words';
import { useWords } from '../../words/words';
import { ProblemBox } from '../ProblemBox';
import { loadSession, type Me } from '../session';
import { useAct, useAnswer } from '../use-answer';
import { useHeading } from '../use-heading';
import { NewTotp } from './NewTotp';
import { useProof } from './use-proof';

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
          <NewTotp onDone={(codes) => (codes === null ? void loadSession() : onNewCodes(codes))} />
        ) : (
          <Give />
        )}
        <button type="button" className="button quiet wide" data-testid="sign-in-leave" onClick={onLeave}>
          {words.leave}
        </button>
      </section>
    </PageFrame>
  );
}

function Give() {
  const words = useDirectoryWords().secondFactor;
  const proof = useProof('totp');
  const act = useAct();
  function submit(event: SubmitEvent): void {
    event.preventDefault();
    void act.run(proof.give);
  }
  return (
    <form noValidate onSubmit={submit}>
      {act.problem !== null && <ProblemBox problem={act.problem} />}
      {proof.field}
      <div className="stacked-buttons">
        <button type="submit" className="button primary" aria-disabled={act.isBusy} data-testid="proof-submit">
          {words.submit}
        </button>
        {proof.other}
      </div>
    </form>
  );
}
