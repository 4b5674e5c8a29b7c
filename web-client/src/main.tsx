import { StrictMode } from 'react';
import { createRoot } from 'react-dom/client';
import { App } from './app/App';
import './appearance/base.css';
import './appearance/page.css';
import { getPreferences } from './preferences/preferences';
import { loadLanguage } from './words/words';

async function start(): Promise<void> {
  const root = document.getElementById('root');
  if (root === null) throw new Error('index.html has an element #root');
  const { language, largeType } = getPreferences();
  document.documentElement.toggleAttribute('data-large-type', largeType);
  // A failed fetch of the other language must not leave the page blank.
  await loadLanguage(language).catch(() => undefined);
  createRoot(root).render(
    <StrictMode>
      <App />
    </StrictMode>,
  );
}

void start();
