import type { ReactNode } from 'react';
import { Icon, type IconName } from '../../appearance/Icon';

interface Props {
  icon: IconName;
  label: string;
  /** A word for the present state under the name; the name itself never changes. */
  state?: string;
  /** On or off for a switch; leave out for a plain button. */
  pressed?: boolean;
  /** Shows something when pressed, such as a panel. */
  expanded?: boolean;
  tone?: 'alert' | 'active' | 'leave';
  busy?: boolean;
  onClick: () => void;
  testId: string;
  children?: ReactNode;
}

export function ControlButton({ icon, label, state, pressed, expanded, tone, busy, onClick, testId, children }: Props) {
  return (
    <button
      type="button"
      className={tone === undefined ? 'control' : `control control-${tone}`}
      aria-pressed={pressed}
      aria-expanded={expanded}
      aria-disabled={busy === true ? true : undefined}
      onClick={() => {
        if (busy !== true) onClick();
      }}
      data-testid={testId}
    >
      <span className="control-icon">
        <Icon name={icon} />
        {children}
      </span>
      <span className="control-label">
        {label}
        {state !== undefined && (
          <span className="control-state" aria-hidden="true">
            {' '}
            {state}
          </span>
        )}
      </span>
    </button>
  );
}
