import { useSyncExternalStore } from 'react';
import { Icon } from '../appearance/Icon';
import { useWords } from '../words/words';
import { announcer } from './announcer';

/** One polite and one assertive region for the whole page, and the notices for the eye. */
export function LiveRegions() {
  const words = useWords();
  const { polite, assertive, notices } = useSyncExternalStore(announcer.subscribe, announcer.getState);
  return (
    <>
      <div className="visually-hidden" role="status" aria-live="polite" data-testid="live-polite">
        {polite}
      </div>
      <div className="visually-hidden" role="alert" aria-live="assertive" data-testid="live-assertive">
        {assertive}
      </div>
      {notices.length > 0 && (
        <section aria-label={words.notifications}>
          <ul className="notices" role="list">
            {notices.map((notice) => (
              <li key={notice.id} className="notice" data-urgency={notice.urgency} data-testid="notice">
                <span>{notice.text}</span>
                <button type="button" aria-label={words.close} onClick={() => announcer.dismiss(notice.id)}>
                  <Icon name="close" />
                </button>
              </li>
            ))}
          </ul>
        </section>
      )}
    </>
  );
}
