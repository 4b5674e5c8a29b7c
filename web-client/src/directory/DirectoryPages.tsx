/**
 * The pages of the directory: set-up, sign-in, organisations, people, the audit log. What may be done is decided by the
 * server; what is shown follows what it says one may do.
 */
import { useEffect, useState } from 'react';
import { navigate, usePathname } from '../app/route';
import { PageFrame } from '../appearance/PageFrame';
import { Waiting } from '../appearance/Waiting';
import { useWords } from '../words/words';
import { AccountPage } from './account/AccountPage';
import { AuditPage } from './audit/AuditPage';
import './directory.css';
import { DirectoryFrame } from './DirectoryFrame';
import { OrganisationsPage } from './organisations/OrganisationsPage';
import { placesOf } from './places';
import { ProblemBox } from './ProblemBox';
import { answerQuestions } from './questions';
import { directoryRouteOf, type DirectoryRoute } from './route';
import { loadSession, signOut, useSession, type Me } from './session';
import { SetUpPage } from './setup/SetUpPage';
import { InvitationPage } from './sign-in/InvitationPage';
import { RecoveryCodes } from './sign-in/RecoveryCodes';
import { SecondFactorPage } from './sign-in/SecondFactorPage';
import { SignInPage } from './sign-in/SignInPage';

export function DirectoryPages() {
  const words = useWords();
  const route = directoryRouteOf(usePathname());
  const session = useSession();
  const [newCodes, setNewCodes] = useState<string[] | null>(null);
  useEffect(() => {
    answerQuestions();
    void loadSession();
  }, []);
  // Where one is after signing in when no other page was wanted.
  const home = route.page === 'login' && session.at === 'in' && newCodes === null ? placesOf(session.me)[0] : undefined;
  useEffect(() => {
    if (home !== undefined) navigate(home.address, 'replace');
  }, [home]);

  if (route.page === 'setup') return <SetUpPage />;
  if (route.page === 'invitation') return <InvitationPage />;
  if (newCodes !== null) {
    return (
      <PageFrame>
        <section className="card narrow">
          <RecoveryCodes
            codes={newCodes}
            onDone={() => {
              setNewCodes(null);
              void loadSession();
            }}
          />
        </section>
      </PageFrame>
    );
  }
  switch (session.at) {
    case 'unknown':
      return (
        <PageFrame>
          <Waiting text={words.opening} longText={words.openingLong} />
        </PageFrame>
      );
    case 'failed':
      return (
        <PageFrame>
          <section className="card narrow">
            <ProblemBox problem={session.problem} onRetry={() => void loadSession()} />
          </section>
        </PageFrame>
      );
    case 'out':
      return <SignInPage because={session.because} />;
    case 'half':
      return <SecondFactorPage me={session.me} onNewCodes={setNewCodes} onLeave={() => void signOut()} />;
    case 'in':
      return <Inside me={session.me} route={route} onNewCodes={setNewCodes} />;
  }
}

interface InsideProps {
  me: Me;
  route: DirectoryRoute;
  onNewCodes: (codes: string[]) => void;
}

function Inside({ me, route, onNewCodes }: InsideProps) {
  return (
    <DirectoryFrame me={me}>
      {route.page === 'account' && <AccountPage me={me} onNewCodes={onNewCodes} />}
      {route.page === 'organisations' && <OrganisationsPage me={me} id={route.id} />}
      {route.page === 'audit' && <AuditPage me={me} />}
    </DirectoryFrame>
  );
}
