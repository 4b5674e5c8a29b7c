/** Who opens the link of an invitation chooses a password, and is signed in. */
import { useState, type SubmitEvent } from 'react';
import { answered, directory } from '../../api/directory';
import { useDocumentTitle } from '../../app/document-title';
import { navigate } from '../../app/route';
import { PageFrame } from '../../appearance/PageFrame';
import { useDirectoryWords } from '../../words/directory-words';
import { ProblemBox } from '../ProblemBox';
import { signedInAs } from '../session';
import { useAct } from '../use-answer';
import { useHeading } from '../use-heading';
import { useNewPassword } from './NewPassword';

export function InvitationPage() {
  const words = useDirectoryWords().invitation;
  useDocumentTitle(words.documentTitle);
  const heading = useHeading();
  // Behind the sign, so that it was in no request and no server's log.
  const [token] = useState(() => location.hash.slice(1));
  const [wasSent, setSent] = useState(false);
  const chosen = useNewPassword(wasSent);
  const act = useAct();

  function submit(event: SubmitEvent): void {
    event.preventDefault();
    setSent(true);
    const { password } = chosen;
    if (password === null) return;
    void act.run(async () => {
      const me = await answered(directory.POST('/api/invitations/accept', { body: { token, password } }));
      signedInAs(me);
      navigate('/login', 'replace');
    });
  }

  return (
    <PageFrame>
      <section className="card narrow">
        <h1 ref={heading} tabIndex={-1}>
          {words.title}
        </h1>
        {token === '' ? (
          <p className="lead">{words.noToken}</p>
        ) : (
          <>
            <p className="lead">{words.lead}</p>
            {act.problem !== null && <ProblemBox problem={act.problem} />}
            <form noValidate onSubmit={submit}>
              {chosen.fields}
              <button type="submit" className="button primary wide" aria-disabled={act.isBusy} data-testid="invitation-submit">
                {words.submit}
              </button>
            </form>
          </>
        )}
      </section>
    </PageFrame>
  );
}
