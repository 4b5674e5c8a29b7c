import { useState, type SubmitEvent } from 'react';
import { Dialog } from '../appearance/Dialog';
import { Field } from '../appearance/Field';
import { useDirectoryWords } from '../words/directory-words';
import { ProblemBox } from './ProblemBox';
import { useQuestion, type Question } from './questions';
import type { Me } from './session';
import { useProof } from './sign-in/use-proof';
import { useAct } from './use-answer';

/** Opens by itself when the server wants something first. */
export function QuestionDialog({ me }: { me: Me }) {
  const question = useQuestion();
  if (question === null) return null;
  return question.about === 'proof' ? (
    <ProofDialog me={me} answer={question.answer} />
  ) : (
    <ReasonDialog answer={question.answer} />
  );
}

type AnswerOf<About extends Question['about']> = Extract<Question, { about: About }>['answer'];

function ProofDialog({ me, answer }: { me: Me; answer: AnswerOf<'proof'> }) {
  const words = useDirectoryWords();
  const proof = useProof(me.session.strength === 'two_factors' ? 'totp' : 'password');
  const act = useAct();
  function submit(event: SubmitEvent): void {
    event.preventDefault();
    void act.run(async () => {
      await proof.give();
      answer(true);
    });
  }
  return (
    <Dialog title={words.proof.title} onClose={() => answer(false)} testId="proof-dialog">
      <p className="lead">{words.proof.why}</p>
      {act.problem !== null && <ProblemBox problem={act.problem} />}
      <form noValidate onSubmit={submit}>
        {proof.field}
        <div className="dialog-buttons">
          <button type="submit" className="button primary" aria-disabled={act.isBusy} data-testid="proof-submit">
            {words.proof.submit}
          </button>
          {proof.other}
        </div>
      </form>
    </Dialog>
  );
}

function ReasonDialog({ answer }: { answer: AnswerOf<'reason'> }) {
  const words = useDirectoryWords();
  const [reason, setReason] = useState('');
  const [isMissing, setMissing] = useState(false);
  function submit(event: SubmitEvent): void {
    event.preventDefault();
    if (reason.trim() === '') setMissing(true);
    else answer(reason.trim());
  }
  return (
    <Dialog title={words.reason.title} onClose={() => answer(null)} testId="reason-dialog">
      <form noValidate onSubmit={submit}>
        <Field
          label={words.reason.label}
          hint={words.reason.hint}
          error={isMissing ? words.reason.missing : null}
          value={reason}
          maxLength={500}
          onChange={(event) => setReason(event.target.value)}
          data-testid="reason"
        />
        <div className="dialog-buttons">
          <button type="submit" className="button primary" data-testid="reason-submit">
            {words.reason.submit}
          </button>
        </div>
      </form>
    </Dialog>
  );
}
