import { useWords } from '../words/words';

/** Where on the way into the meeting the visitor is: words and dots. */
export function Steps({ now }: { now: 1 | 2 | 3 }) {
  const words = useWords();
  const names = words.join.steps;
  return (
    <ol className="steps" role="list" aria-label={words.join.step(now, names.length)}>
      {names.map((name, index) => (
        <li
          key={name}
          className={index + 1 < now ? 'step step-done' : index + 1 === now ? 'step step-now' : 'step'}
          aria-current={index + 1 === now ? 'step' : undefined}
        >
          <span className="step-dot" aria-hidden="true">
            {index + 1 < now ? '✓' : index + 1}
          </span>
          <span className="step-name">{name}</span>
        </li>
      ))}
    </ol>
  );
}
