/** Pages that are fetched only when they are needed, so that the first one is light. */

export function loadDeviceCheckPage() {
  return import('../device-check/DeviceCheckPage').then((module) => ({ default: module.DeviceCheckPage }));
}

/** The meeting with its media library. */
export function loadMeetingPage() {
  return import('../meeting/MeetingPage').then((module) => ({ default: module.MeetingPage }));
}

/** Organisations, people and the audit log, with sign-in and set-up. */
export function loadDirectoryPages() {
  return import('../directory/DirectoryPages').then((module) => ({ default: module.DirectoryPages }));
}

/** While the visitor looks at the device check, so that pressing 加入会议 does not wait for the network. */
export function prefetchMeetingPage(): void {
  void loadMeetingPage().catch(() => undefined);
}
