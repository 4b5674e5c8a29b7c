import { beforeEach, describe, expect, it } from 'vitest';
import { forgetMeeting, microphoneAfterAbsence, parseSeat, readSeat, writeSeat, type SeatMemory } from './seat-memory';

const memory: SeatMemory = {
  seat: 's',
  name: '王',
  meetingName: '会',
  active: true,
  microphoneOn: true,
  cameraOn: false,
  handAt: 5,
  joinedAt: 1,
  lastSeenAt: 2,
};

describe('the memory of a seat', () => {
  beforeEach(() => sessionStorage.clear());

  it('survives a reload', () => {
    writeSeat('1', memory);
    expect(readSeat('1')).toEqual(memory);
    expect(readSeat('2')).toBeNull();
  });

  it('keeps the seat but not the hand after leaving', () => {
    writeSeat('1', memory);
    forgetMeeting('1', false);
    expect(readSeat('1')).toMatchObject({ seat: 's', active: false, handAt: null });
  });

  it('is gone after a removal', () => {
    writeSeat('1', memory);
    forgetMeeting('1', true);
    expect(readSeat('1')).toBeNull();
  });

  it('is not believed when it has another shape', () => {
    expect(parseSeat(null)).toBeNull();
    expect(parseSeat({ ...memory, seat: 1 })).toBeNull();
    expect(parseSeat({ ...memory, handAt: 'x' })?.handAt).toBeNull();
  });

  it('brings the microphone back open only after a short absence', () => {
    expect(microphoneAfterAbsence(true, 29_000)).toBe(true);
    expect(microphoneAfterAbsence(true, 31_000)).toBe(false);
    expect(microphoneAfterAbsence(false, 0)).toBe(false);
  });
});
