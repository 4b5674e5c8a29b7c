import { useEffect, useRef } from 'react';
import { getPreferences } from '../../preferences/preferences';
import { focusKind, shortcutOf } from './shortcut';

export interface ShortcutActions {
  toggleMicrophone: () => void;
  toggleCamera: () => void;
  /** The space bar is held (true) or let go (false). */
  talk: (held: boolean) => void;
  showHelp: () => void;
  /** Closes the topmost layer; never leaves the meeting. */
  closeTop: () => void;
}

/** The regions F6 walks through, in reading order. */
const REGIONS = '[data-region]';

export function useShortcuts(actions: ShortcutActions): void {
  const latest = useRef(actions);
  useEffect(() => {
    latest.current = actions;
  }, [actions]);

  useEffect(() => {
    let isTalking = false;
    const onKeyDown = (event: KeyboardEvent): void => {
      if (event.isComposing) return;
      // An open dialog is a layer of its own: its keys are the browser's, except the way to the microphone.
      const inDialog = document.querySelector('dialog[open]') !== null;
      const shortcut = shortcutOf(
        {
          key: event.key,
          code: event.code,
          ctrlOrMeta: event.ctrlKey || event.metaKey,
          alt: event.altKey,
          shift: event.shiftKey,
        },
        focusKind(document.activeElement),
        getPreferences().singleKeyShortcuts,
      );
      if (shortcut === null || (inDialog && shortcut !== 'microphone' && shortcut !== 'camera')) return;
      event.preventDefault();
      if (event.repeat) return;
      const { toggleMicrophone, toggleCamera, talk, showHelp, closeTop } = latest.current;
      switch (shortcut) {
        case 'microphone':
          toggleMicrophone();
          break;
        case 'camera':
          toggleCamera();
          break;
        case 'talk':
          isTalking = true;
          talk(true);
          break;
        case 'help':
          showHelp();
          break;
        case 'nextRegion':
          focusNextRegion(event.shiftKey);
          break;
        case 'close':
          closeTop();
          break;
      }
    };
    const stopTalking = (): void => {
      if (!isTalking) return;
      isTalking = false;
      latest.current.talk(false);
    };
    const onKeyUp = (event: KeyboardEvent): void => {
      if (event.code === 'Space') stopTalking();
    };
    window.addEventListener('keydown', onKeyDown);
    window.addEventListener('keyup', onKeyUp);
    // A window that loses the focus never hears the key go up.
    window.addEventListener('blur', stopTalking);
    return () => {
      window.removeEventListener('keydown', onKeyDown);
      window.removeEventListener('keyup', onKeyUp);
      window.removeEventListener('blur', stopTalking);
    };
  }, []);
}

function focusNextRegion(backwards: boolean): void {
  const regions = [...document.querySelectorAll<HTMLElement>(REGIONS)];
  const now = regions.findIndex((region) => region.contains(document.activeElement));
  const step = backwards ? -1 : 1;
  const next = regions[(now + step + regions.length) % regions.length];
  const inside = next?.querySelector<HTMLElement>('button, input, textarea, [tabindex="0"]');
  (inside ?? next)?.focus();
}
