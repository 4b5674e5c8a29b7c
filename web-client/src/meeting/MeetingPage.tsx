/** The meeting itself. Fetched lazily together with the media library. */
import { useEffect, useRef, useState, useSyncExternalStore } from 'react';
import { isBrowserSupported, LogLevel, setLogLevel, type Room } from 'livekit-client';
import { announcer } from '../accessibility/announcer';
import type { Meeting } from '../api/meetings';
import { useDocumentTitle } from '../app/document-title';
import { Icon } from '../appearance/Icon';
import { PageFrame } from '../appearance/PageFrame';
import { useMediaQuery } from '../appearance/use-media-query';
import { Waiting } from '../appearance/Waiting';
import type { DeviceChoice } from '../device-check/device-choice';
import type { DepartureReason } from '../left/departure';
import { getPreferences } from '../preferences/preferences';
import { useWords } from '../words/words';
import { ChatPanel } from './chat/ChatPanel';
import { ReconnectBanner } from './connection/ReconnectBanner';
import { ControlBar, type Panel } from './controls/ControlBar';
import { ShortcutsDialog } from './keyboard/ShortcutsDialog';
import { useShortcuts } from './keyboard/use-shortcuts';
import { MeetingHeader } from './MeetingHeader';
import './meeting.css';
import './panels.css';
import { ParticipantsPanel } from './participants/ParticipantsPanel';
import { MeetingSession } from './session/meeting-session';
import type { SeatMemory } from './session/seat-memory';
import { SettingsDialog } from './settings/SettingsDialog';
import type { LayoutMode } from './stage/layout';
import { Stage } from './stage/Stage';

declare global {
  interface Window {
    /** For tests and for looking into a fault from the browser's console; there only during a meeting. */
    readonly __terrace?: { readonly room: Room };
  }
}

// The library tells every step otherwise; what matters to a visitor is on the page.
setLogLevel(LogLevel.warn);

interface Props {
  meeting: Meeting;
  choice: DeviceChoice | null;
  memory: SeatMemory | null;
  onLeft: (reason: DepartureReason, attendedMs: number) => void;
}

export function MeetingPage({ meeting, choice, memory, onLeft }: Props) {
  const words = useWords();
  const [session, setSession] = useState<MeetingSession | null>(null);
  // The stay begins once; later changes of the callback must not begin another.
  const input = useRef({ meeting, choice, memory, onLeft });
  useEffect(() => {
    input.current.onLeft = onLeft;
  }, [onLeft]);

  useEffect(() => {
    if (!isBrowserSupported()) {
      input.current.onLeft('unsupported', 0);
      return;
    }
    const { meeting, choice, memory } = input.current;
    const name = choice === null ? (memory?.name ?? getPreferences().name) : getPreferences().name;
    const created = new MeetingSession({
      meeting,
      name,
      choice,
      memory,
      onEnd: (reason, attendedMs) => input.current.onLeft(reason, attendedMs),
    });
    Object.defineProperty(window, '__terrace', { value: Object.freeze({ room: created.room }), configurable: true });
    created.start();
    setSession(created);
    return () => {
      created.close();
      Reflect.deleteProperty(window, '__terrace');
    };
  }, []);

  useDocumentTitle(words.meeting.documentTitle(meeting.name));
  return session === null ? <Joining name={meeting.name} /> : <MeetingRoom code={meeting.code} session={session} />;
}

function Joining({ name }: { name: string }) {
  const words = useWords();
  return (
    <PageFrame>
      <div data-testid="joining">
        <h1 className="joining-name">{name}</h1>
        <Waiting text={words.meeting.joining} longText={words.meeting.joiningLong} />
      </div>
    </PageFrame>
  );
}

/** A side panel lies over the stage where there is no room beside it. */
const OVERLAY = '(max-width: 63.99rem)';

function MeetingRoom({ code, session }: { code: string; session: MeetingSession }) {
  const words = useWords();
  const state = useSyncExternalStore(session.subscribe, session.getState);
  const [panel, setPanel] = useState<Panel | null>(null);
  const [mode, setMode] = useState<LayoutMode>('grid');
  const [dialog, setDialog] = useState<'settings' | 'shortcuts' | null>(null);
  const isOverlay = useMediaQuery(OVERLAY);
  const panelOpener = useRef<Element | null>(null);
  const { microphoneOn } = state;

  useEffect(() => {
    session.setChatOpen(panel === 'chat');
  }, [session, panel]);

  function showPanel(next: Panel): void {
    if (panel === null) panelOpener.current = document.activeElement;
    if (panel === next) closePanel();
    else setPanel(next);
  }

  function closePanel(): void {
    setPanel(null);
    if (panelOpener.current instanceof HTMLElement && panelOpener.current.isConnected) panelOpener.current.focus();
    else document.querySelector<HTMLElement>('[data-testid=more]')?.focus();
  }

  useShortcuts({
    toggleMicrophone: () => void session.media.toggle('microphone'),
    toggleCamera: () => void session.media.toggle('camera'),
    talk: (held) => {
      // Held while already open changes nothing, and letting go must not mute then.
      if (held && microphoneOn) return;
      if (held) announcer.notify(words.notices.pushToTalk);
      void session.media.setMicrophone(held, false);
    },
    showHelp: () => setDialog('shortcuts'),
    closeTop: () => {
      if (panel !== null) closePanel();
    },
  });

  if (state.phase === 'joining') return <Joining name={state.meetingName} />;
  const headcount = state.participants.length + state.unlisted;
  const alone = headcount <= 1;

  return (
    <div className={panel === null ? 'meeting' : 'meeting meeting-with-panel'} data-testid="meeting" data-phase={state.phase}>
      <MeetingHeader code={code} state={state} />
      {state.outage !== null && (
        <ReconnectBanner outage={state.outage} onRetry={() => session.retryNow()} onLeave={() => session.leave()} />
      )}
      <main className="meeting-main" data-region="stage" tabIndex={-1} aria-label={words.meeting.stage}>
        {!state.canPlayAudio && (
          <button type="button" className="button primary wide start-audio" onClick={() => session.startAudio()} data-testid="start-audio">
            <Icon name="sound" />
            {words.meeting.startAudio}
          </button>
        )}
        {state.screenOn && (
          <p className="own-share" data-testid="own-share">
            <Icon name="share" size="1.25rem" />
            <span>{words.meeting.youShare}</span>
            <button type="button" className="button small" onClick={() => void session.media.setScreen(false)} data-testid="share-stop">
              {words.meeting.stopSharing}
            </button>
          </p>
        )}
        {alone && <p className="alone">{words.meeting.alone}</p>}
        <Stage people={state.participants} mode={mode} isOwnLineDown={state.outage !== null} />
      </main>
      <ControlBar
        session={session}
        state={state}
        panel={panel}
        mode={mode}
        onPanel={showPanel}
        onMode={setMode}
        onSettings={() => setDialog('settings')}
      />
      {panel !== null && (
        <aside
          className={isOverlay ? 'panel panel-overlay' : 'panel'}
          aria-label={panel === 'chat' ? words.chat.title : words.participants.title}
          data-region="panel"
          data-testid={`${panel}-panel`}
        >
          <div className="panel-head">
            <h2>
              {panel === 'chat' ? words.chat.title : words.participants.title}
              {panel === 'participants' && <span className="secondary"> {words.participants.count(headcount)}</span>}
            </h2>
            <button type="button" className="icon-button" aria-label={words.close} onClick={closePanel} data-testid="panel-close">
              <Icon name="close" />
            </button>
          </div>
          {panel === 'chat' ? (
            <ChatPanel code={code} chat={state.chat} onSend={(text) => session.sendMessage(text)} />
          ) : (
            <ParticipantsPanel code={code} people={state.participants} unlisted={state.unlisted} />
          )}
        </aside>
      )}
      {dialog === 'settings' && (
        <SettingsDialog media={session.media} onClose={() => setDialog(null)} onShowShortcuts={() => setDialog('shortcuts')} />
      )}
      {dialog === 'shortcuts' && <ShortcutsDialog onClose={() => setDialog(null)} />}
    </div>
  );
}
