import type { MouseEvent, ReactNode } from 'react';
import { navigate, usePathname } from '../app/route';
import { Logo } from '../appearance/Logo';
import { PageSwitches } from '../appearance/PageFrame';
import { useDirectoryWords } from '../words/directory-words';
import { useWords } from '../words/words';
import { placesOf } from './places';
import { QuestionDialog } from './QuestionDialog';
import { directoryRouteOf } from './route';
import { signOut, type Me } from './session';
import { useAct } from './use-answer';

/** Header, places and main of every page for who is signed in. */
export function DirectoryFrame({ me, children }: { me: Me; children: ReactNode }) {
  const { product, skipToContent } = useWords();
  const words = useDirectoryWords();
  const { page } = directoryRouteOf(usePathname());
  const act = useAct();
  return (
    <div className="page">
      <a className="skip-link" href="#content">
        {skipToContent}
      </a>
      <header className="page-header">
        <Logo />
        <div className="page-header-name">
          <span className="page-header-product">{product}</span>
        </div>
        <PageSwitches />
        <span className="directory-who" data-testid="who">
          {me.person.name}
        </span>
        <button
          type="button"
          className="header-button"
          data-testid="sign-out"
          aria-disabled={act.isBusy}
          onClick={() =>
            void act.run(async () => {
              await signOut();
              navigate('/login');
            })
          }
        >
          {words.signIn.out}
        </button>
      </header>
      <nav className="directory-places" aria-label={words.places.label}>
        {placesOf(me).map((place) => (
          <Link key={place.page} to={place.address} isHere={place.page === page} testId={`place-${place.page}`}>
            {words.places[place.page]}
          </Link>
        ))}
      </nav>
      <main id="content" className="directory-main" tabIndex={-1}>
        {children}
      </main>
      <QuestionDialog />
    </div>
  );
}

interface LinkProps {
  to: string;
  isHere?: boolean;
  testId?: string;
  children: ReactNode;
}

/** Goes to another page without loading the client anew; with a modifier key as the browser does. */
export function Link({ to, isHere = false, testId, children }: LinkProps) {
  function follow(event: MouseEvent): void {
    if (event.ctrlKey || event.metaKey || event.shiftKey || event.button !== 0) return;
    event.preventDefault();
    navigate(to);
  }
  return (
    <a href={to} aria-current={isHere ? 'page' : undefined} onClick={follow} data-testid={testId}>
      {children}
    </a>
  );
}
