/** What the visitor takes from the device check into the meeting. */
export interface DeviceChoice {
  /** Already capturing; handed over so that no browser asks twice. */
  microphone: MediaStreamTrack | null;
  camera: MediaStreamTrack | null;
  enterMuted: boolean;
}

export function stopTracks(choice: DeviceChoice): void {
  choice.microphone?.stop();
  choice.camera?.stop();
}
