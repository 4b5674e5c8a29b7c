import { useState, type SubmitEvent } from 'react';
import { answered, directory } from '../api/directory';
import { Dialog } from '../appearance/Dialog';
import { Field } from '../appearance/Field';
import { Waiting } from '../appearance/Waiting';
import { useDirectoryWords } from '../words/directory-words';
import { useWords } from '../words/words';
import { ProblemBox } from './ProblemBox';
import { useQuestion, type Question } from './questions';
import { ProofForm } from './sign-in/ProofForm';
import { useAnswer } from './use-answer';

/** Opens by itself when the server wants something first. */
export function QuestionDialog() {
  const question = useQuestion();
  if (question === null) return null;
  return question.about === 'proof' ? (
    <ProofDialog answer={question.answer} />
  ) : (
    <ReasonDialog answer={question.answer} />
  );
}

type AnswerOf<About extends Question['about']> = Extract<Question, { about: About }>['answer'];

function ProofDialog({ answer }: { answer: AnswerOf<'proof'> }) {
  const { opening, openingLong } = useWords();
  const words = useDirectoryWords();
  const factors = useAnswer('factors', () => answered(directory.GET('/api/factors')));
  return (
    <Dialog title={words.proof.title} onClose={() => answer(false)} testId="proof-dialog">
      <p className="lead">{words.proof.why}</p>
      {factors.problem !== null && <ProblemBox problem={factors.problem} onRetry={factors.reload} />}
      {factors.value === null ? (
        factors.problem === null && <Waiting text={opening} longText={openingLong} />
      ) : (
        <ProofForm factors={factors.value} verb={words.proof.submit} onProved={() => answer(true)} />
      )}
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
