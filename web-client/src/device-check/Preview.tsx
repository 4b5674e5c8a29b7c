import { useEffect, useRef } from 'react';
import { Icon } from '../appearance/Icon';
import { useWords } from '../words/words';

/** The visitor's own picture, mirrored as in a mirror. */
export function Preview({ track, starting }: { track: MediaStreamTrack | null; starting: boolean }) {
  const words = useWords();
  const video = useRef<HTMLVideoElement>(null);
  useEffect(() => {
    const element = video.current;
    if (element === null || track === null) return;
    element.srcObject = new MediaStream([track]);
    void element.play().catch(() => undefined);
    return () => {
      element.srcObject = null;
    };
  }, [track]);
  return (
    <div className="preview" data-testid="check-preview" data-open={track !== null}>
      {track === null ? (
        <div className="preview-empty">
          <Icon name="cameraOff" size="2.5rem" />
          <p>{starting ? words.check.previewStarting : words.check.previewEmpty}</p>
        </div>
      ) : (
        <video ref={video} className="mirrored" autoPlay playsInline muted aria-label={words.check.preview} />
      )}
    </div>
  );
}
