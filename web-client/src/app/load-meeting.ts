/**
 * The meeting with its media library is fetched only when a meeting opens. While the visitor
 * looks at the device check it is fetched ahead, so that pressing 加入 does not wait for it.
 */
export function loadMeetingPage() {
  return import('../meeting/MeetingPage').then((module) => ({ default: module.MeetingPage }));
}

export function prefetchMeetingPage(): void {
  void loadMeetingPage().catch(() => undefined);
}
