import type { ReactNode } from 'react';
import { setPreferences, usePreferences } from '../preferences/preferences';
import { switchLanguage, useWords } from '../words/words';
import { Logo } from './Logo';

/** Header and main of every page outside the meeting. */
export function PageFrame({ children }: { children: ReactNode }) {
  const words = useWords();
  return (
    <div className="page">
      <a className="skip-link" href="#content">
        {words.skipToContent}
      </a>
      <header className="page-header">
        <Logo />
        <div className="page-header-name">
          <span className="page-header-product">{words.product}</span>
          <span className="page-header-tagline">{words.tagline}</span>
        </div>
        <PageSwitches />
      </header>
      <main id="content" className="page-main" tabIndex={-1}>
        {children}
      </main>
    </div>
  );
}

export function PageSwitches() {
  const words = useWords();
  const { largeType, language } = usePreferences();
  return (
    <div className="page-switches">
      <button
        type="button"
        className="header-button"
        data-testid="large-type"
        onClick={() => setPreferences({ largeType: !largeType })}
      >
        {largeType ? words.largeTypeOff : words.largeTypeOn}
      </button>
      <button
        type="button"
        className="header-button"
        data-testid="language"
        lang={words.otherLanguageTag}
        onClick={() => void switchLanguage(language === 'zh' ? 'en' : 'zh')}
      >
        {words.otherLanguage}
      </button>
    </div>
  );
}
