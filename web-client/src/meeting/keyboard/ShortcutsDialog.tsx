import { Dialog } from '../../appearance/Dialog';
import { useWords } from '../../words/words';

export function ShortcutsDialog({ onClose }: { onClose: () => void }) {
  const words = useWords();
  return (
    <Dialog title={words.shortcuts.title} onClose={onClose} testId="shortcuts-dialog">
      <dl className="shortcuts">
        {words.shortcuts.rows.map(([keys, meaning]) => (
          <div key={keys}>
            <dt>
              <kbd>{keys}</kbd>
            </dt>
            <dd>{meaning}</dd>
          </div>
        ))}
      </dl>
    </Dialog>
  );
}
