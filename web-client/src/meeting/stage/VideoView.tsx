import type { VideoTrack } from 'livekit-client';
import { useEffect, useRef } from 'react';

interface Props {
  track: VideoTrack;
  /** Own cameras are shown as in a mirror. */
  isMirrored: boolean;
  /** A shared screen is shown whole; a face fills its tile. */
  isWhole: boolean;
}

/** Attaching tells the library the size on the page, by which it asks the server for the right layer. */
export function VideoView({ track, isMirrored, isWhole }: Props) {
  const video = useRef<HTMLVideoElement>(null);
  useEffect(() => {
    const element = video.current;
    if (element === null) return;
    track.attach(element);
    return () => {
      track.detach(element);
    };
  }, [track]);
  return (
    <video
      ref={video}
      className={`tile-video${isMirrored ? ' mirrored' : ''}${isWhole ? ' tile-video-whole' : ''}`}
      autoPlay
      playsInline
      muted
      aria-hidden="true"
      tabIndex={-1}
    />
  );
}
