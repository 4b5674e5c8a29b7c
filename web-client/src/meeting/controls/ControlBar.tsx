import { useState } from 'react';
import { Dialog } from '../../appearance/Dialog';
import { useMediaQuery } from '../../appearance/use-media-query';
import { useWords } from '../../words/words';
import { UnreadBadge } from '../chat/ChatPanel';
import type { MeetingSession, SessionState } from '../session/meeting-session';
import { canShareScreen } from '../session/own-media';
import type { LayoutMode } from '../stage/layout';
import { ControlButton } from './ControlButton';

export type Panel = 'chat' | 'participants';

interface Props {
  session: MeetingSession;
  state: SessionState;
  panel: Panel | null;
  mode: LayoutMode;
  onPanel: (panel: Panel) => void;
  onMode: (mode: LayoutMode) => void;
  onSettings: () => void;
}

/** Below this width the rarer controls move behind 更多. In rem, so that large type counts. */
const NARROW = '(max-width: 47.99rem)';
const NARROW_LARGE_TYPE = '(max-width: 63.99rem)';

export function ControlBar(props: Props) {
  const { session, state, panel, mode, onPanel, onMode, onSettings } = props;
  const words = useWords();
  const isNarrowNormal = useMediaQuery(NARROW);
  const isNarrowLarge = useMediaQuery(NARROW_LARGE_TYPE);
  const isLargeType = document.documentElement.hasAttribute('data-large-type');
  const isNarrow = isLargeType ? isNarrowLarge : isNarrowNormal;
  const [moreOpen, setMoreOpen] = useState(false);
  const { microphoneOn, cameraOn, screenOn, handAt, busy, chat } = state;
  const onOff = (on: boolean): string => (on ? words.controls.on : words.controls.off);

  const share = canShareScreen() && (
    <ControlButton
      icon="share"
      label={words.controls.share}
      pressed={screenOn}
      busy={busy.screen}
      {...(screenOn ? { tone: 'active' as const, state: words.controls.stop } : {})}
      onClick={() => {
        setMoreOpen(false);
        void session.media.setScreen(!screenOn);
      }}
      testId="share"
    />
  );
  const chatButton = (
    <ControlButton
      icon="chat"
      label={words.controls.chat}
      expanded={panel === 'chat'}
      onClick={() => {
        setMoreOpen(false);
        onPanel('chat');
      }}
      testId="chat"
    >
      <UnreadBadge count={chat.unread} />
    </ControlButton>
  );
  const rest = (
    <>
      <ControlButton
        icon="people"
        label={words.controls.participants}
        state={String(state.participants.length)}
        expanded={panel === 'participants'}
        onClick={() => {
          setMoreOpen(false);
          onPanel('participants');
        }}
        testId="participants"
      />
      <ControlButton
        icon={mode === 'grid' ? 'grid' : 'speakerView'}
        label={words.controls.layout}
        state={mode === 'grid' ? words.controls.grid : words.controls.speaker}
        onClick={() => {
          setMoreOpen(false);
          onMode(mode === 'grid' ? 'speaker' : 'grid');
        }}
        testId="layout"
      />
      <ControlButton
        icon="settings"
        label={words.controls.settings}
        onClick={() => {
          setMoreOpen(false);
          onSettings();
        }}
        testId="settings"
      />
    </>
  );

  return (
    <section className="controls" aria-label={words.meeting.controls} data-region="controls">
      <ControlButton
        icon={microphoneOn ? 'microphone' : 'microphoneOff'}
        label={words.controls.microphone}
        state={onOff(microphoneOn)}
        pressed={microphoneOn}
        busy={busy.microphone}
        {...(microphoneOn ? {} : { tone: 'alert' as const })}
        onClick={() => void session.media.toggle('microphone')}
        testId="mic"
      />
      <ControlButton
        icon={cameraOn ? 'camera' : 'cameraOff'}
        label={words.controls.camera}
        state={onOff(cameraOn)}
        pressed={cameraOn}
        busy={busy.camera}
        {...(cameraOn ? {} : { tone: 'alert' as const })}
        onClick={() => void session.media.toggle('camera')}
        testId="camera"
      />
      {!isNarrow && share}
      <ControlButton
        icon="hand"
        label={words.controls.hand}
        {...(handAt === null ? {} : { tone: 'active' as const, state: words.controls.lower })}
        pressed={handAt !== null}
        onClick={() => void session.setHand(handAt === null)}
        testId="hand"
      />
      {!isNarrow && chatButton}
      {!isNarrow && rest}
      {isNarrow && (
        <ControlButton
          icon="more"
          label={words.controls.more}
          expanded={moreOpen}
          onClick={() => setMoreOpen(true)}
          testId="more"
        >
          <UnreadBadge count={chat.unread} />
        </ControlButton>
      )}
      <ControlButton icon="leave" label={words.controls.leave} tone="leave" onClick={() => session.leave()} testId="leave" />
      {isNarrow && moreOpen && (
        <Dialog title={words.controls.more} onClose={() => setMoreOpen(false)} testId="more-dialog">
          <div className="more-grid">
            {share}
            {chatButton}
            {rest}
          </div>
        </Dialog>
      )}
    </section>
  );
}
